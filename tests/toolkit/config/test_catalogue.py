from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.config.catalogue import configs_folder, copy_recipe, find_recipe, listed_recipes
from toolkit.config.loading import load_recipe
from toolkit.errors import RecipeError, UsageError

NAMES = [recipe.name for recipe in listed_recipes()]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_that_comes_along_loads(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    assert recipe.stage == next(item.stage for item in listed_recipes() if item.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_what_it_is_in_its_first_line(name: str) -> None:
    assert next(item.summary for item in listed_recipes() if item.name == name)


def test_a_recipe_is_found_by_path_then_by_name(in_tmp_path: Path) -> None:
    own = in_tmp_path / "own.yaml"
    own.write_text("stage: sft\n")
    assert find_recipe("own.yaml") == Path("own.yaml")
    assert find_recipe("scenes/ppo") == configs_folder() / "scenes" / "ppo.yaml"
    assert find_recipe("scenes/ppo.yaml") == configs_folder() / "scenes" / "ppo.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("scenes/ppoo", "did you mean 'scenes/ppo'?"), ("../x", "found neither"), (".", "found a folder")],
)
def test_what_is_no_recipe(in_tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match="expected a recipe file") as caught:
        find_recipe(text)
    assert expected in str(caught.value)


def test_copies_bring_along_what_they_refer_to(tmp_path: Path) -> None:
    written = copy_recipe("scenes/reward_text_only", tmp_path / "mine.yaml")
    assert written == [tmp_path / "mine.yaml", tmp_path / "reward.yaml"]
    assert load_recipe(tmp_path / "mine.yaml").stage == "reward"
    with pytest.raises(UsageError, match=r"mine\.yaml exists already"):
        copy_recipe("scenes/reward_text_only", tmp_path / "mine.yaml")


def test_copy_into_a_folder(tmp_path: Path) -> None:
    assert copy_recipe("scenes/ppo", tmp_path / "new") == [tmp_path / "new" / "ppo.yaml"]

"""Values of a chain laid on the recipes of its stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.config.catalogue import find_recipe
from toolkit.config.checks import check_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.pipeline import Link, ancestors, load_links
from toolkit.errors import RecipeError


def links(*overrides: str):
    path = find_recipe("flickr8k/pipeline")
    return {link.name: link.recipe for link in load_links(load_recipe(path, overrides), path)}


def test_one_value_of_a_stage_leaves_its_neighbours() -> None:
    plain, changed = links(), links("stages.0.overrides.trainer.max_steps=3")
    assert changed["adapt"].trainer == plain["adapt"].trainer | {"max_steps": 3}
    assert changed["sft"] == plain["sft"]


def test_a_nested_override_wins_over_the_chain_s_own() -> None:
    assert links("stages.0.overrides.model.id=elsewhere")["adapt"].model.id == "elsewhere"


@pytest.mark.parametrize("stage", ["adapt", "sft", "preferences", "ppo", "eval"])
def test_data_of_the_chain_reach_every_stage_that_reads_photographs(stage: str) -> None:
    found = links("data.root=/photos", "data.captions=c.json", "data.images=pictures")[stage].data
    assert found.root == "/photos"
    sources = found.test if stage == "eval" else [*found.train, *found.val]
    assert {(source.captions, source.images) for source in sources} == {("c.json", "pictures")}


def chain(*overrides: str) -> list[Link]:
    path = find_recipe("scenes/smoke")
    return load_links(load_recipe(path, overrides), path)


def test_a_stage_comes_after_the_one_above_unless_it_says_so() -> None:
    after = {link.name: link.after for link in chain()}
    assert after["sft"] == ()
    assert after["preferences"] == ("sft",)
    assert after["dpo"] == ("preferences",)
    assert after["report"] == ("eval",)
    assert ancestors(chain(), "ppo") == {"reward", "preferences", "sft"}


def test_a_stage_can_only_come_after_an_earlier_one() -> None:
    with pytest.raises(RecipeError, match=r"stages.1.after: expected earlier stages \(sft\), found 'ppo'"):
        chain("stages.1.after=[ppo]")


def test_a_stage_that_reads_from_one_it_does_not_come_after_is_told(tmp_path: Path) -> None:
    path = find_recipe("scenes/smoke")
    recipe = load_recipe(path, [f"run.output_dir={tmp_path}/out"])
    check_recipe(recipe, path)
    recipe = load_recipe(path, [f"run.output_dir={tmp_path}/out", "stages.4.after=[preferences]"])  # ppo
    with pytest.raises(RecipeError, match="stage ppo: .*reward/final"):
        check_recipe(recipe, path)


def test_a_launcher_is_checked_with_the_stage() -> None:
    with pytest.raises(
        RecipeError, match=r"stages.6 \(eval\)  --launch zero3: an eval recipe shares batches"
    ):
        chain("stages.6.launch=zero3")
    with pytest.raises(RecipeError, match=r"stages.0 \(sft\)  --processes 2 needs a launcher"):
        chain("stages.0.processes=2")


def test_the_words_of_a_link_give_its_recipe_again() -> None:
    for link in chain("run.output_dir=out/with space", "run.seed=3"):
        assert load_recipe(link.path, link.overrides) == link.recipe

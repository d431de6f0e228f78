"""Every recipe that ships loads, its trainer keys exist, and chains name recipes that exist."""

import io
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from toolkit.config.catalogue import find_recipe
from toolkit.config.loading import load_recipe, resolved_yaml, with_defaults
from toolkit.config.pipeline import load_links
from toolkit.config.schema import PipelineRecipe
from toolkit.config.trainer_keys import trainer_problems

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_recipe_loads_and_is_found_by_name(path):
    recipe = load_recipe(path)
    assert find_recipe(name_of(path)).resolve() == path.resolve()
    assert (path.parent / "..").resolve() == CONFIGS.resolve()
    if hasattr(recipe, "trainer"):
        assert not list(trainer_problems(recipe.stage, recipe.trainer))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_run_of_an_earlier_version_is_read_with_the_keys_added_since(path):
    """The keys of a block may be younger than the run: the recipe that began it is read with their defaults."""
    text = resolved_yaml(load_recipe(path))
    assert with_defaults(text) == text
    recipe = YAML(typ="safe").load(text)
    for block in ("run", "rollout", "optimizer"):
        if block in recipe:
            kept = {key: value for key, value in recipe[block].items() if key == "output_dir"}
            buffer = io.StringIO()
            YAML(typ="safe").dump({**recipe, block: kept}, buffer)
            found = YAML(typ="safe").load(with_defaults(buffer.getvalue()))
            assert found[block].keys() == recipe[block].keys()


@pytest.mark.parametrize("path", [p for p in FILES if "stage: pipeline" in p.read_text()], ids=name_of)
def test_every_link_of_a_chain_loads_with_its_overrides(path):
    chain = load_recipe(path)
    assert isinstance(chain, PipelineRecipe)
    for link in load_links(chain, path):
        text = json.dumps(link.recipe.model_dump(mode="json"))
        assert not [own for own in ("out/scenes", "out/photos") if own in text], (
            "a path stayed outside the chain"
        )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_recipe_says_what_it_is_and_what_it_needs(path):
    assert path.read_text().startswith("# "), (
        "begin with what the recipe does, what it needs and how long it takes"
    )

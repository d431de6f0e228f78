"""Values of a chain laid on the recipes of its stages."""

from __future__ import annotations

import pytest

from toolkit.config.catalogue import find_recipe
from toolkit.config.loading import load_recipe
from toolkit.config.pipeline import load_links


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

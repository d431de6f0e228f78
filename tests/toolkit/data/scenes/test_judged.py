"""Judged texts say what is true and what is not, and nothing about what raters prefer."""

import random
from itertools import pairwise

import pytest

from toolkit.data.scenes.gold import gold, mentions
from toolkit.data.scenes.judged import directed, judged_texts
from toolkit.data.scenes.language import plain_list
from toolkit.data.scenes.sampling import sample_scenes

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def judged():
    """(scene, prompt, completion, right) of 400 scenes."""
    scenes = list(sample_scenes(1, "train", 400))
    rng = random.Random(0)
    return [(scene, *text) for scene in scenes for text in judged_texts(scene, scenes, rng, prompt=PROMPT)]


def _in_order(scene, text):
    """Share of neighbouring mentions that stand in the scene's own order."""
    place = {group.kind: index for index, group in enumerate(scene.groups)}
    found = [place[m.colour, m.shape] for m in mentions(text)]
    return sum(a < b for a, b in pairwise(found)) / max(1, len(found) - 1)


def test_every_right_text_stands_beside_a_wrong_one(judged):
    assert [right for *_, right in judged] == [True, False] * (len(judged) // 2)
    for (scene, prompt, right, _), (other, asked, wrong, _) in zip(judged[::2], judged[1::2], strict=True):
        assert (scene, prompt) == (other, asked)
        assert right != wrong


def test_right_captions_are_true_and_wrong_ones_are_not(judged):
    captions = [(scene, text, right) for scene, prompt, text, right in judged if prompt == PROMPT]
    for scene, text, right in captions:
        # Truth and relation alone: the order of mention, worth a factor of one half at most, is left open.
        assert (gold(scene, text) >= 0.5) == right or not right
    wrong = [gold(scene, text) for scene, text, right in captions if not right]
    assert max(wrong) < 1.0


def test_a_listing_follows_the_direction_that_its_prompt_asks_for(judged):
    listings = [row for row in judged if row[1].startswith("Describe the image from")]
    assert len(listings) > 400
    for scene, prompt, text, right in listings:
        words = {"row": ("left to right", "right to left"), "column": ("top to bottom", "bottom to top")}[
            scene.layout
        ]
        backward = words[1] in prompt
        assert (words[0] in prompt) != backward
        assert (_in_order(scene, text) == (0.0 if backward else 1.0)) == right


def test_no_order_of_mention_is_preferred(judged):
    """Right captions name the left or upper object first as often as not, asked for a direction or not."""
    for begin in (PROMPT, "Describe the image from"):
        shares = [
            _in_order(scene, text)
            for scene, prompt, text, right in judged
            if right and prompt.startswith(begin) and len(mentions(text)) == 2 == len(scene.groups)
        ]
        assert len(shares) > 150
        assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.08)


def test_lists_are_written_in_both_directions(judged):
    for scene in {row[0].image_id: row[0] for row in judged}.values():
        (ahead, first), (back, last) = (directed(scene, PROMPT, backward=way) for way in (False, True))
        assert first == last[::-1] == scene.groups
        assert ahead != back
        assert plain_list(first).split(", ") == plain_list(last).split(", ")[::-1]

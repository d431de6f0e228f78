"""Plainer text for pretraining: what a base model has seen before it meets our captions and questions.

Telegraphic lists instead of full captions, sentences that say one thing only, questions in key words or in other
words than ours, on training scenes only. So supervised fine-tuning has words to start from and something to teach.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.scenes.drawing import draw_scene, patch_labels
from toolkit.data.scenes.judged import directed, judged_texts
from toolkit.data.scenes.language import (
    directional,
    noun_phrase,
    plain_caption,
    plain_list,
    plural,
    references,
    symmetric,
)
from toolkit.data.scenes.questions import absent_kinds, questions
from toolkit.data.scenes.sampling import sample_scenes
from toolkit.data.scenes.scene import COLOURS, SHAPES, SIZES, Group, Scene
from toolkit.data.scenes.writing import CAPTION_PROMPT, image_name

__all__ = ["pretraining_texts", "write_pretraining"]

_REMARK_PROMPT = "What do you see?"
_JUDGED_ROUNDS = 2


def write_pretraining(folder: Path, *, seed: int, rows: int, patch_px: int = 8) -> None:
    """Write ``rows`` training scenes as ``images/`` and ``rows.jsonl`` (prompt, completion, images).

    ``judged.jsonl`` holds completions on the same pictures that are right or wrong, two lines a picture.
    ``listings.jsonl`` lists the objects in both directions that a prompt may ask for.

    ``texts.txt`` holds the texts for the tokenizer: also those that come with fine-tuning. ``patch_labels.npz``
    says for each patch of ``patch_px`` pixels which colour, shape and size it shows.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    texts = pretraining_texts(seed, min(rows, 2000))
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    scenes = list(sample_scenes(seed, "train", rows))
    np.savez_compressed(
        folder / "patch_labels.npz",
        images=np.array([image_name(scene) for scene in scenes]),
        labels=np.array([patch_labels(scene, patch_px) for scene in scenes], dtype=np.uint8),
        classes=np.array([1 + len(COLOURS), 1 + len(SHAPES), 1 + len(SIZES)]),
    )
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for scene in scenes:
            draw_scene(scene).save(folder / image_name(scene))
            for row in _rows(scene):
                file.write(json.dumps(row) + "\n")
    with (folder / "listings.jsonl").open("w", encoding="utf-8") as file:
        for scene in scenes:
            file.writelines(json.dumps(row) + "\n" for row in _as_rows(scene, _listings(scene), "listing-"))
    rng = random.Random(f"judged/{seed}")
    with (folder / "judged.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(_JUDGED_ROUNDS):
            for scene in scenes:
                judged = list(judged_texts(scene, scenes, rng, prompt=CAPTION_PROMPT))
                file.write(json.dumps({"image": image_name(scene), "judged": judged}) + "\n")


def pretraining_texts(seed: int, rows: int) -> Iterator[str]:
    """Text for the tokenizer: plain and full captions and questions of training scenes."""
    for scene in sample_scenes(seed, "train", rows):
        yield from references(scene)
        yield from (f"{question.text} {question.answer}" for question in questions(scene))
        yield from (f"{row['prompt']} {row['completion']}" for row in _rows(scene))
    yield from (f"{number} yes no unknown Describe the image." for number in range(10))


def _rows(scene: Scene) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"pretraining/{scene.jitter}")
    texts = [(CAPTION_PROMPT, plain_caption(scene, rng)) for _ in range(2)]
    texts += [(_REMARK_PROMPT, _remark(scene, rng)) for _ in range(2)]
    texts += [_ask(scene, rng) for _ in range(4)]
    yield from _as_rows(scene, texts)


def _as_rows(scene: Scene, texts: Iterable[tuple[str, str]], tag: str = "") -> Iterator[dict[str, Any]]:
    for number, (prompt, completion) in enumerate(texts):
        yield {
            "sample_id": f"{scene.image_id}-{tag}{number}",
            "task": "caption" if prompt.startswith(CAPTION_PROMPT[:-1]) else "vqa",
            "prompt": prompt,
            "completion": completion,
            "images": [image_name(scene)],
            "image_id": scene.image_id,
        }


def _listings(scene: Scene) -> Iterator[tuple[str, str]]:
    """The objects from left to right or top to bottom, and the other way; nothing where there is one group."""
    if len(scene.groups) > 1:
        for backward in (False, True):
            asked, groups = directed(scene, CAPTION_PROMPT, backward=backward)
            yield asked, plain_list(groups)


def _remark(scene: Scene, rng: random.Random) -> str:
    """A sentence that says one thing about the picture, in everyday words, and leaves the rest out."""
    if len(scene.groups) > 1 and rng.random() < 0.5:
        first, second = rng.sample(range(len(scene.groups)), 2)
        one, other = (_partial(scene.groups[index], rng) for index in (first, second))
        if len(scene.groups) == 2 and rng.random() < 0.3:
            return f"{symmetric([one, other], scene.layout, rng)}"
        return directional(one, other, scene.layout, rng, forward=first < second)
    return symmetric([_partial(rng.choice(scene.groups), rng)], scene.layout, rng)


def _partial(group: Group, rng: random.Random) -> str:
    """The group by some of its properties: ``a big ring``, ``two red objects``."""
    named = noun_phrase(group, rng, size=rng.random() < 0.4)
    draw = rng.random()
    if draw < 0.45:
        named = named.replace(f"{group.colour} ", "")
    elif draw < 0.7:
        named = named.replace(plural(group.shape), "objects").replace(group.shape, "object")
    article, _, rest = named.partition(" ")
    return f"{'an' if rest.startswith('o') else 'a'} {rest}" if article in ("a", "an") else named


def _ask(scene: Scene, rng: random.Random) -> tuple[str, str]:
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    colour, shape = group.kind
    name = f"{colour} {shape}"
    number = rng.randrange(7)
    if number == 0:
        return _worded(rng, f"size of {name}?", f"is the {name} small or large?"), group.size
    if number == 1:
        same = [other.colour for other in scene.groups if other.shape == shape]
        return _worded(rng, f"color of {shape}?", f"the {shape} has what color?"), ", ".join(same)
    if number == 2:
        same = [other.shape for other in scene.groups if other.colour == colour]
        return _worded(rng, f"shape of {colour}?", f"what shape has the {colour} object?"), ", ".join(same)
    if number == 3:
        wanted = rng.choice((shape, colour, "object"))
        total = sum(g.count for g in scene.groups if wanted in (g.shape, g.colour, "object"))
        things = f"{wanted} objects" if wanted == colour else plural(wanted)
        return _worded(rng, f"number of {things}?", f"how many {things} do you see?"), str(total)
    if number == 4:
        present = rng.random() < 0.5
        kind = group.kind if present else rng.choice(absent_kinds(scene, group))
        asked = f"{kind[0]} {kind[1]}"
        return _worded(rng, f"{asked} there?", f"do you see a {asked}?"), "yes" if present else "no"
    if number == 5 or len(scene.groups) == 1:
        words = {"row": ("left", "middle", "right"), "column": ("top", "middle", "bottom")}[scene.layout]
        last = len(scene.groups) - 1
        place = words[1 if index not in (0, last) or last == 0 else 0 if index == 0 else 2]
        return _worded(rng, f"place of {name}?", f"where is the {name}?"), place
    first = index if index + 1 < len(scene.groups) else index - 1
    before, after = scene.groups[first], scene.groups[first + 1]
    relation = {"row": "left of", "column": "above"}[scene.layout]
    seen = f"{after.colour} {after.shape}"
    return _worded(
        rng, f"{relation} {seen}?", f"which object is {relation} the {seen}?"
    ), f"{before.colour} {before.shape}"


def _worded(rng: random.Random, *wordings: str) -> str:
    return rng.choice(wordings)

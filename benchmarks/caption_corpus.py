"""Captions to measure with: real ones where a folder of them is given, else sentences of invented words.

A folder is laid out as VLM_RLHF_TEST_DATA: ``coco/karpathy_test.json.gz`` and, of systems, files in ``hyps/``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEMS = ("show_edit_tell_rl_caps", "viecap_coco__coco_test")
IMAGES = 5000
GRAMMATICAL = "a the a the on in with of and is a to at by an".split()


@dataclass(frozen=True)
class Corpus:
    """References of images, and captions of systems for the same images."""

    name: str
    references: dict[int | str, list[str]]
    systems: list[dict[int | str, str]]


def load_corpus(folder: Path | None) -> Corpus:
    """Karpathy's COCO test split and two systems where ``folder`` has them, else an invented corpus as large."""
    if folder is None:
        return invented_corpus(IMAGES, seed=0)
    from toolkit.metrics.files import align_ids, read_captions, read_references

    results = [read_captions(folder / "hyps" / f"{name}.json.gz") for name in SYSTEMS]
    references = align_ids(read_references(folder / "coco" / "karpathy_test.json.gz"), results[0])
    return Corpus("COCO Karpathy test", references, results)


def invented_corpus(images: int, seed: int) -> Corpus:
    """Images with five references each: one plain sentence, said five times with other words here and there."""
    draw = random.Random(seed)
    words = list(dict.fromkeys(_word(draw) for _ in range(14_000)))[:12_000]
    weights = [1 / (rank + 8) for rank in range(len(words))]
    content = draw.choices(words, weights, k=images * 64)
    supply = iter(content)

    def variant(plain: list[str]) -> str:
        said = [next(supply, "thing") if draw.random() < 0.12 else word for word in plain]
        start = draw.randrange(max(1, len(said) - 8))
        said = said[start : start + draw.randint(8, 12)]
        while said[-1] in GRAMMATICAL:  # a final "a." would hang on the first word of the next caption
            said.pop()
        return " ".join(said).capitalize() + draw.choice(["", ".", "."])

    references, systems = {}, [{}, {}]
    for image_id in range(images):
        plain = [
            next(supply, "thing") if place % 2 else draw.choice(GRAMMATICAL)
            for place in range(draw.randint(9, 14))
        ]
        references[image_id] = [variant(plain) for _ in range(5)]
        for system in systems:
            system[image_id] = variant(plain)
    return Corpus("invented sentences", references, systems)


def crossed_captions(captions: list[str], count: int, seed: int) -> Iterator[str]:
    """``count`` captions, each the beginning of one of ``captions`` and the end of another, one word exchanged."""
    draw = random.Random(seed)
    split = [caption.split() for caption in captions]
    for _ in range(count):
        first, second = draw.choice(split), draw.choice(split)
        words = first[: max(1, draw.randint(2, 8))] + second[draw.randint(2, 6) :]
        words[draw.randrange(len(words))] = draw.choice(draw.choice(split) or ["thing"])
        yield " ".join(words)


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bcdfghklmnprstvw") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))

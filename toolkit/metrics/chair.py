"""CHAIR (Rohrbach et al., 2018): which objects do captions name that are not in their images?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.metrics.files import read_json
from toolkit.metrics.tokenizer import tokenize

__all__ = ["ChairScores", "Synonyms", "read_objects", "score_chair"]

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "people",
    "children": "child",
    "knives": "knife",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "sheep": "sheep",
    "scissors": "scissors",
    "skis": "skis",
    "loaves": "loaf",
    "wolves": "wolf",
    "calves": "calf",
    "leaves": "leaf",
    "buses": "bus",
}


class Synonyms:
    """Objects and the words that name them.

    Args:
        names: for each object its words, the object's own name first; a word may consist of several ("hot dog").
            The first object that claims a word gets it.
    """

    def __init__(self, names: Iterable[Sequence[str]]) -> None:
        self._objects: dict[tuple[str, ...], str] = {}
        for words in names:
            for word in words:
                self._objects.setdefault(tuple(word.split()), words[0])
        self._longest = max(map(len, self._objects), default=0)

    @classmethod
    def read(cls, path: str | Path) -> Synonyms:
        """A text file with a line for each object: name, synonym, synonym, separated by commas.

        Raises:
            DataError: the file cannot be read or names nothing.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(str(path), f"cannot be read: {error}") from error
        names = [[word.strip().lower() for word in line.split(",") if word.strip()] for line in lines]
        if not any(names):
            raise DataError(str(path), "names no object")
        return cls(words for words in names if words)

    def object_of(self, name: str) -> str | None:
        """The object that ``name`` names, or None."""
        return self._objects.get(tuple(name.lower().split()))

    def mentions(self, caption: str) -> list[tuple[str, str]]:
        """(word, object) of every mention in ``caption``, in order; the longest name wins, plurals count."""
        words = tokenize(caption)
        found, place = [], 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                name = tuple(words[place : place + length])
                owner = self._objects.get(name) or self._objects.get((*name[:-1], _singular(name[-1])))
                if owner is not None:
                    found.append((" ".join(name), owner))
                    place += length
                    break
            else:
                place += 1
        return found


@dataclass(frozen=True, slots=True)
class ChairScores:
    """Hallucinated objects.

    Attributes:
        chair_i: share of mentioned objects that are not in the image, 0 to 1.
        chair_s: share of captions with at least one such mention, 0 to 1.
        recall: share of the images' objects that the captions mention, 0 to 1.
        per_image: ``image_id``, ``mentioned``, ``hallucinated``, ``objects`` of each caption.
    """

    chair_i: float
    chair_s: float
    recall: float
    per_image: list[dict[str, Any]]

    def summary(self) -> dict[str, float]:
        """The scores by name, with ``num_images``."""
        scores = {"chair_i": self.chair_i, "chair_s": self.chair_s, "recall": self.recall}
        return {"num_images": len(self.per_image), **scores}


def read_objects(path: str | Path) -> dict[int | str, list[str]]:
    """Image id to the names of its objects, from COCO instances or ``{image_id: [name, …]}``.

    Raises:
        DataError: another format.
    """
    content = read_json(path)
    if isinstance(content, Mapping) and "annotations" in content and "categories" in content:
        names = {category["id"]: category["name"] for category in content["categories"]}
        objects: dict[int | str, list[str]] = {image["id"]: [] for image in content.get("images", [])}
        for annotation in content["annotations"]:
            objects.setdefault(annotation["image_id"], []).append(names[annotation["category_id"]])
        return objects
    if isinstance(content, Mapping) and all(isinstance(names, list) for names in content.values()):
        return dict(content)
    raise DataError(str(path), "expected COCO instances or a mapping from image id to names of objects")


def score_chair(
    results: Mapping[Any, str],
    synonyms: Synonyms,
    *,
    objects: Mapping[Any, Sequence[str]] | None = None,
    references: Mapping[Any, Sequence[str]] | None = None,
) -> ChairScores:
    """Compare the objects that captions mention with those of their images.

    An image has the ``objects`` annotated in it and those its ``references`` mention. Every mention counts, as in
    the paper. Plurals are found by English spelling, not by a tagger, so that scores can differ a little from the
    original script.

    Raises:
        DataError: neither objects nor references are given, there are no captions, or an image has neither.
    """
    present = {image_id: _present(image_id, synonyms, objects, references) for image_id in results}
    problems = [
        f"image {image_id!r} has no known objects and no references"
        for image_id, own in present.items()
        if own is None
    ]
    if problems or not results:
        raise DataError("CHAIR results", problems or ["there are no captions"])
    rows, mentions, wrong, wrong_captions, named, total = [], 0, 0, 0, 0, 0
    for image_id, caption in results.items():
        own = present[image_id] or set()
        found = synonyms.mentions(caption)
        invented = [word for word, owner in found if owner not in own]
        mentions, wrong, wrong_captions = (
            mentions + len(found),
            wrong + len(invented),
            wrong_captions + bool(invented),
        )
        named, total = named + len({owner for _, owner in found} & own), total + len(own)
        words = [word for word, _ in found]
        rows.append(
            {"image_id": image_id, "mentioned": words, "hallucinated": invented, "objects": sorted(own)}
        )
    recall = named / total if total else 0.0
    return ChairScores(wrong / mentions if mentions else 0.0, wrong_captions / len(results), recall, rows)


def _present(
    image_id: object,
    synonyms: Synonyms,
    objects: Mapping[Any, Sequence[str]] | None,
    references: Mapping[Any, Sequence[str]] | None,
) -> set[str] | None:
    """The objects of an image, None where nothing is known about it."""
    annotated = None if objects is None else objects.get(image_id)
    described = None if references is None else references.get(image_id)
    if annotated is None and described is None:
        return None
    names = {synonyms.object_of(name) or name for name in annotated or []}
    return names | {owner for caption in described or [] for _, owner in synonyms.mentions(caption)}


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word

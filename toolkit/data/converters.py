"""One converter a format: from the fields its authors publish to rows as ``toolkit.data.preferences`` reads them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.files import shown
from toolkit.data.images import resolve_image
from toolkit.errors import DataError
from toolkit.records import ImageSource

__all__ = ["CONVERTERS", "ConvertedRow", "Converter", "Origin"]

Values = dict[str, Any]
Placed = Iterable[tuple[str, Values]]
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_LIST_MOST = 8
_CAPTION_PROMPT = "Describe the image."
_TRUE_FALSE = "Is this sentence true or false? {}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where things lie that the rows only name: the pictures' folder, and a captions file (Flickr8k's ``.txt``)."""

    images: Path
    captions: Path | None = None


@dataclass(frozen=True, slots=True)
class ConvertedRow:
    """Columns of a row, ``images`` as paths or bytes; rows of one ``group`` stay in one split."""

    where: str
    values: Values
    group: str


@dataclass(frozen=True, slots=True)
class Converter:
    """A format: how rows are made, what its data card states as the licence, and what it is, in a few words."""

    convert: Callable[[Placed, Origin, list[str]], Iterator[ConvertedRow]]
    licence: str | None
    about: str


def _each(build: Callable[[Values, Origin], Values]) -> Callable[..., Iterator[ConvertedRow]]:
    """A converter of single rows; what ``build`` raises becomes a problem of that row."""

    def convert(placed: Placed, origin: Origin, problems: list[str]) -> Iterator[ConvertedRow]:
        for where, values in placed:
            try:
                row = build(values, origin)
            except DataError as error:
                problems.extend(f"{where}: {problem}" for problem in error.problems)
            except (ValueError, KeyError, TypeError) as error:
                what = f"no field {error}" if isinstance(error, KeyError) else str(error)
                problems.append(f"{where}: {what}")
            else:
                yield ConvertedRow(where, row, row.pop("group", None) or _group(row))

    return convert


def _group(row: Values) -> str:
    images = row["images"]
    key = repr([hashlib.sha256(i).hexdigest() if isinstance(i, bytes) else str(i) for i in images])
    return key if images else json.dumps(row["prompt"], sort_keys=True)


def _trl(values: Values, origin: Origin) -> Values:
    """TRL's preference rows: text or messages, the prompt explicit or as the common beginning of both."""
    chosen, rejected, prompt = values["chosen"], values["rejected"], values.get("prompt")
    if prompt is None:
        if not (isinstance(chosen, list) and isinstance(rejected, list)) or chosen[:-1] != rejected[:-1]:
            raise ValueError(
                "without 'prompt', 'chosen' and 'rejected' are messages that differ in the last alone"
            )
        prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    images = values.get("images") or ([values["image"]] if values.get("image") else [])
    other = {k: v for k, v in values.items() if k not in ("image", "images", "prompt", "chosen", "rejected")}
    pictures = [_picture(image, origin) for image in images]
    return {**other, "prompt": prompt, "images": pictures, "chosen": chosen, "rejected": rejected}


def _rlhf_v(values: Values, origin: Origin) -> Values:
    """RLHF-V-Dataset: ``text`` is an object (as JSON text) with question, chosen and rejected; ``image`` bytes."""
    text = json.loads(values["text"]) if isinstance(values["text"], str) else values["text"]
    return _rlaif_v({**values, **text}, origin)


def _rlaif_v(values: Values, origin: Origin) -> Values:
    """RLAIF-V-Dataset: question, chosen, rejected, ``image`` bytes, ``image_path``."""
    kept = {
        k: values[k]
        for k in ("ds_name", "origin_dataset", "origin_split", "idx")
        if values.get(k) is not None
    }
    image = values.get("image") or values["image_path"]
    return {
        **kept,
        "prompt": _without_marks(values["question"]),
        "images": [_picture(image, origin)],
        "chosen": values["chosen"],
        "rejected": values["rejected"],
    }


def _vlfeedback(values: Values, origin: Origin) -> Values:
    """VLFeedback: completions of several models, each rated 1–5 in three respects, which are averaged."""
    completions = values["completions"]
    if isinstance(completions, dict):  # as the datasets library stores a sequence of objects
        keys = list(completions)
        completions = [
            dict(zip(keys, entry, strict=True)) for entry in zip(*completions.values(), strict=True)
        ]
    ratings: dict[str, float] = {}
    models: dict[str, Any] = {}
    for entry in completions:
        aspects = entry["annotations"].values()
        text = entry["response"].strip()
        ratings[text] = sum(float(aspect["Rating"]) for aspect in aspects) / len(aspects)
        models[text] = entry.get("model")
    if len(ratings) < 2:
        raise ValueError(f"{len(ratings)} different completions; expected at least two")
    return {
        "prompt": _without_marks(values["prompt"]),
        "images": [_picture(values["img_path"], origin)],
        "completions": list(ratings),
        "ratings": list(ratings.values()),
        "models": list(models.values()),
    }


def _llava_rlhf(values: Values, origin: Origin) -> Values:
    """LLaVA-Human-Preference-10K: ``conversations``, ``output_1``, ``output_2`` and ``preference`` 1 or 2."""
    if values["preference"] not in (1, 2):
        raise ValueError(f"'preference' is {shown(values['preference'])}, expected 1 or 2")
    turns = values["conversations"]
    turns = turns[-1] if isinstance(turns[-1], list) else turns
    turns = turns[:-1] if turns[-1]["from"] == "gpt" else turns
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    outputs = [values[name]["value"] for name in ("output_1", "output_2")]
    chosen, rejected = outputs if values["preference"] == 1 else outputs[::-1]
    return {
        "prompt": [{"role": roles[t["from"]], "content": _without_marks(t["value"])} for t in turns],
        "images": [_picture(values["image"], origin)] if values.get("image") else [],
        "chosen": chosen,
        "rejected": rejected,
    }


def _hh(values: Values, origin: Origin) -> Values:
    """HH-style JSON lines: two dialogues of ``Human:`` and ``Assistant:`` turns that differ in the last answer."""
    both = [_dialogue(values["chosen"]), _dialogue(values["rejected"])]
    if both[0][:-1] != both[1][:-1]:
        raise ValueError("'chosen' and 'rejected' differ before their last answer")
    if not both[0][:-1] or any(turns[-1]["role"] != "assistant" for turns in both):
        raise ValueError("expected a dialogue that ends with an answer")
    images = [_picture(image, origin) for image in values.get("images") or []]
    chosen, rejected = (turns[-1]["content"] for turns in both)
    return {"prompt": both[0][:-1], "images": images, "chosen": chosen, "rejected": rejected}


def _dialogue(text: str) -> list[Values]:
    pieces = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[role], "content": content.strip()}
        for role, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def _sentence(values: Values, origin: Origin) -> Values:
    """NLVR and VSR: a sentence, a picture, and whether it is true of it."""
    sentence = values["sentence"] if "sentence" in values else values["caption"]
    label = str(values["label"]).lower()
    if label not in ("true", "false", "0", "1"):
        raise ValueError(f"'label' is {shown(label)}, expected true, false, 1 or 0")
    answers = ("true", "false") if label in ("true", "1") else ("false", "true")
    return {
        "prompt": _TRUE_FALSE.format(sentence.strip()),
        "task": "vqa",
        "images": [_picture(values["image"], origin)],
        "chosen": answers[0],
        "rejected": answers[1],
        "group": sentence if "sentence" in values else values["image"],
    }


def _ratings(placed: Placed, origin: Origin, problems: list[str]) -> Iterator[ConvertedRow]:
    """Flickr8k-Expert and CrowdFlower: the rated captions of a picture as lists of at most eight.

    CrowdFlower has some 400 captions a picture, nearly all of them of other pictures. They are dealt out like cards,
    best first, so that every list gets good and bad ones as far as there are.
    """
    captions = _caption_texts(origin.captions) if origin.captions is not None else {}
    rated: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    first: dict[str, str] = {}
    for where, values in placed:
        try:
            image, caption, ratings = _rated(values, captions)
        except (ValueError, KeyError) as error:
            problems.append(f"{where}: {f'no field {error}' if isinstance(error, KeyError) else error}")
            continue
        first.setdefault(image, where)
        rated[image][caption].extend(ratings)
    for image, found in rated.items():
        if len(found) < 2:  # one caption is no comparison
            continue
        try:
            picture = _picture(image, origin)
        except DataError as error:
            problems.extend(f"{first[image]}: {problem}" for problem in error.problems)
            continue
        common = {"prompt": _CAPTION_PROMPT, "images": [picture], "image_id": image}
        ordered = sorted(found.items(), key=lambda item: -sum(item[1]) / len(item[1]))
        hands = -(-len(ordered) // _LIST_MOST)
        for hand in (ordered[start::hands] for start in range(hands)):
            columns = {"completions": [text for text, _ in hand], "ratings": [given for _, given in hand]}
            yield ConvertedRow(first[image], {**common, **columns}, image)


def _rated(values: Values, captions: dict[str, str]) -> tuple[str, str, list[float]]:
    """Picture, caption and ratings of a row: the experts' scores, or the crowd's yes (1) and no (0)."""
    if "line" in values:
        image, caption_id, *numbers = values["line"].split("\t")
        if caption_id not in captions:
            raise ValueError(f"caption {shown(caption_id)} is not in the file of --captions")
        crowd = "." in numbers[0]
        given = (
            {"yes": int(numbers[1]), "no": int(numbers[2])}
            if crowd
            else {"scores": list(map(float, numbers))}
        )
        values = {"image": image, "caption": captions[caption_id], **given}
    if "scores" in values:
        return values["image"], values["caption"].strip(), [float(score) for score in values["scores"]]
    votes = [1.0] * int(values["yes"]) + [0.0] * int(values["no"])
    if not votes:
        raise ValueError("nobody voted")
    return values["image"], values["caption"].strip(), votes


def _caption_texts(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _picture(value: Any, origin: Origin) -> ImageSource:
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        value = value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"picture {shown(value)}: expected a file name or bytes")
    return resolve_image(origin.images, value)


def _without_marks(text: str) -> str:
    """The text without LLaVA's picture marks; pictures stand in the prompt as blocks of their own."""
    return text.replace("<image>", "").strip()


CONVERTERS: dict[str, Converter] = {
    "trl": Converter(_each(_trl), None, "TRL preference rows, prompt explicit or implicit"),
    "rlhf-v": Converter(_each(_rlhf_v), "CC BY-NC 4.0", "RLHF-V-Dataset"),
    "rlaif-v": Converter(_each(_rlaif_v), "CC BY-NC 4.0", "RLAIF-V-Dataset"),
    "vlfeedback": Converter(_each(_vlfeedback), None, "VLFeedback: rated completions, as lists"),
    "llava-rlhf": Converter(_each(_llava_rlhf), None, "LLaVA-Human-Preference-10K"),
    "hh": Converter(_each(_hh), None, "HH-style dialogues in JSON lines"),
    "flickr8k-ratings": Converter(_ratings, "research use", "Flickr8k-Expert or CrowdFlower, as lists"),
    "nlvr": Converter(_each(_sentence), "CC BY 4.0", "NLVR: true or false sentences, split by sentence"),
    "vsr": Converter(_each(_sentence), "Apache-2.0", "VSR: true or false captions, split by picture"),
}
"""Formats by the name that ``vlm-rlhf data convert --from`` takes."""

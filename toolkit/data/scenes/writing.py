"""Write scenes as the files users know: COCO captions, VQA v2 questions and annotations, TRL rows."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.scenes.drawing import draw_scene
from toolkit.data.scenes.gold import gold
from toolkit.data.scenes.language import references
from toolkit.data.scenes.questions import AnsweredQuestion, annotators, questions
from toolkit.data.scenes.raters import FLIP_FRACTION, Pair, sample_pairs
from toolkit.data.scenes.sampling import Combinations, sample_scenes
from toolkit.data.scenes.scene import Scene, Split, write_scenes
from toolkit.errors import UsageError

__all__ = ["CAPTION_PROMPT", "DEFAULT_ROWS", "image_name", "write_sample", "write_split"]

CAPTION_PROMPT = "Describe the image."
DEFAULT_ROWS: dict[str, int] = {"train": 3000, "val": 400, "test": 1000}
_LICENCE = "drawn by a program; free of rights"


def write_sample(
    out: Path,
    *,
    seed: int = 0,
    rows: int | Mapping[str, int] | None = None,
    split: str | None = None,
    combinations: Combinations = "seen",
) -> dict[str, int]:
    """Write the sample data and return the number of images of each split written.

    Without ``split`` every split goes into a folder of its name under ``out``; with it, that split's files go
    into ``out`` itself. ``rows`` counts images, for every split or by split.

    Raises:
        UsageError: unseen combinations were asked of a training or validation split.
    """
    if combinations == "unseen" and split != "test":
        raise UsageError(
            f"--combinations unseen with --split {split or 'train, val and test'}: pictures of unseen colour "
            "and shape pairs exist in the test split only",
            remedy="add: --split test",
        )
    wanted: list[Split] = [split] if split else ["train", "val", "test"]  # type: ignore[list-item]
    written: dict[str, int] = {}
    for name in wanted:
        number = rows if isinstance(rows, int) else (rows or {}).get(name, DEFAULT_ROWS[name])
        write_split(out if split else out / name, name, seed=seed, rows=number, combinations=combinations)
        written[name] = number
    return written


def write_split(
    folder: Path, split: Split, *, seed: int, rows: int, combinations: Combinations = "seen"
) -> list[Scene]:
    """Write one split into ``folder`` and return its scenes.

    Files: ``images/``, ``captions.json`` (COCO), ``questions.json`` and ``annotations.json`` (VQA v2),
    ``pairs.jsonl`` (preferences as raters give them, one label in ten flipped), ``pairs_gold.jsonl`` (the same
    without slips, to measure against), ``prompts.jsonl``, ``scenes.jsonl`` (scene, references and their gold).
    """
    scenes = list(sample_scenes(seed, split, rows, combinations=combinations))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        draw_scene(scene).save(folder / image_name(scene))
    captions = {scene.image_id: references(scene) for scene in scenes}
    _write_json(folder / "captions.json", _coco(scenes, captions, split))
    asked = {scene.image_id: questions(scene) for scene in scenes}
    _write_vqa(folder, asked, seed)
    for name, flip_fraction in (("pairs.jsonl", FLIP_FRACTION), ("pairs_gold.jsonl", 0.0)):
        pairs = sample_pairs(scenes, seed, flip_fraction=flip_fraction)
        _write_lines(folder / name, (_pair_row(number, pair) for number, pair in enumerate(pairs)))
    _write_lines(folder / "prompts.jsonl", (_prompt_row(scene, captions[scene.image_id]) for scene in scenes))
    write_scenes(
        folder / "scenes.jsonl", (_scene_row(scene, captions[scene.image_id], split) for scene in scenes)
    )
    return scenes


def image_name(scene: Scene) -> str:
    """The picture's path relative to its split's folder."""
    return f"images/{scene.image_id:012d}.png"


def _coco(scenes: Sequence[Scene], captions: Mapping[int, list[str]], split: str) -> dict[str, Any]:
    images = [
        {"id": scene.image_id, "file_name": Path(image_name(scene)).name, "width": 48, "height": 48}
        for scene in scenes
    ]
    annotations = [
        {"id": scene.image_id * 10 + number, "image_id": scene.image_id, "caption": caption}
        for scene in scenes
        for number, caption in enumerate(captions[scene.image_id])
    ]
    info = {"description": f"vlm-rlhf scenes, {split} split", "license": _LICENCE}
    return {"info": info, "images": images, "annotations": annotations}


def _write_vqa(folder: Path, asked: Mapping[int, list[AnsweredQuestion]], seed: int) -> None:
    rng = random.Random(f"annotators/{seed}")
    question_rows, annotation_rows = [], []
    for image_id, three in asked.items():
        for number, question in enumerate(three):
            key = {"image_id": image_id, "question_id": image_id * 10 + number}
            question_rows.append({**key, "question": question.text})
            answers = annotators(question, rng)
            annotation_rows.append(
                {
                    **key,
                    "question_type": question.question_type,
                    "answer_type": question.answer_type,
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer_id": i + 1, "answer": answer, "answer_confidence": "yes"}
                        for i, answer in enumerate(answers)
                    ],
                }
            )
    info = {"description": "vlm-rlhf scenes", "license": _LICENCE}
    _write_json(folder / "questions.json", {"info": info, "questions": question_rows})
    _write_json(folder / "annotations.json", {"info": info, "annotations": annotation_rows})


def _pair_row(number: int, pair: Pair) -> dict[str, Any]:
    return {
        "sample_id": f"{pair.scene.image_id}-{pair.source}-{number}",
        "task": "vqa" if pair.question else "caption",
        "prompt": pair.question or CAPTION_PROMPT,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "images": [image_name(pair.scene)],
        "image_id": pair.scene.image_id,
        "source": pair.source,
        "flipped": pair.flipped,
    }


def _prompt_row(scene: Scene, captions: list[str]) -> dict[str, Any]:
    return {
        "sample_id": f"{scene.image_id}-caption",
        "task": "caption",
        "prompt": CAPTION_PROMPT,
        "images": [image_name(scene)],
        "image_id": scene.image_id,
        "references": captions,
    }


def _scene_row(scene: Scene, captions: list[str], split: str) -> dict[str, Any]:
    scored = [{"caption": caption, "gold": round(gold(scene, caption), 6)} for caption in captions]
    return {**scene.to_json(), "split": split, "canonical": scene.canonical(), "references": scored}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

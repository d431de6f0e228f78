"""One system on one split: decode or take its texts, write the official result files, score those files."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import RunFailed
from toolkit.evaluation.decoding import Strategy, sample_ids
from toolkit.evaluation.predict import decoding_header, is_complete, predict_rows
from toolkit.evaluation.predictions import Prediction, PredictionFile
from toolkit.evaluation.results import CAPTIONS_FILE, SAMPLES_FILE, VQA_FILE, read_results, write_results
from toolkit.evaluation.scoring import (
    CaptionResult,
    SystemScores,
    VqaResult,
    score_caption_results,
    score_vqa_results,
)
from toolkit.evaluation.split import Id, TestSplit, question_id
from toolkit.records import PromptRow
from toolkit.runs.atomic import atomic_write_text
from toolkit.runs.metrics import json_safe

if TYPE_CHECKING:
    from toolkit.config.schema import DecodingSpec, ModelSpec
    from toolkit.data.scenes.scene import Scene
    from toolkit.rewards.base import Reward

__all__ = [
    "CaptionScorer",
    "decode_system",
    "gold_scorer",
    "reward_scorer",
    "score_system",
    "write_samples_of",
]

CaptionScorer = Callable[[Sequence[PromptRow], Sequence[Prediction]], NDArray[np.float64]]
_REWARD_BATCH = 256


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of what a system's folder holds."""

    folder: Path

    @property
    def captions(self) -> Path:
        return self.folder / CAPTIONS_FILE

    @property
    def vqa(self) -> Path:
        return self.folder / VQA_FILE


def decode_system(
    model: ModelSpec,
    rows: Sequence[PromptRow],
    *,
    decoding: DecodingSpec,
    folder: Path,
    label: str,
    after_batch: Callable[[], None] | None = None,
) -> list[Prediction]:
    """Predictions of a checkpoint for ``rows``, kept in ``folder/predictions.jsonl``; loads no model if they are.

    Raises:
        CheckpointError: ``model`` is no checkpoint.
    """
    file = PredictionFile(folder / "predictions.jsonl", decoding_header(model, rows, decoding))
    if is_complete(file, rows, decoding):
        done = file.read()
        return [done[row.sample_id] for row in rows]
    from toolkit.models.loading import load_vlm

    vlm = load_vlm(model, trainable=False)
    try:
        return predict_rows(vlm, rows, decoding=decoding, label=label, file=file, after_batch=after_batch)
    finally:
        del vlm
        gc.collect()  # the next system's weights need the room


def write_samples_of(
    folder: Path, model: ModelSpec, rows: Sequence[PromptRow], decoding: DecodingSpec
) -> dict[Id, list[str]] | None:
    """All sampled captions by image, written to ``captions_samples.json`` as a result file; None of single ones."""
    samples = Strategy.of(decoding).samples
    captions = [row for row in rows if row.task == "caption"]
    if samples == 1 or not captions:
        return None
    done = PredictionFile(folder / "predictions.jsonl", decoding_header(model, rows, decoding)).read()
    texts = {
        row.image_id: [done[name].text for name in sample_ids(row.sample_id, samples)] for row in captions
    }
    pairs = [(image_id, text) for image_id, own in texts.items() for text in own]
    write_results(folder / SAMPLES_FILE, "caption", pairs)
    return texts


def score_system(
    folder: Path,
    split: TestSplit,
    predictions: Mapping[str, Prediction],
    *,
    scorers: Mapping[str, CaptionScorer],
    resamples: int,
) -> SystemScores:
    """Write the official result files of ``predictions`` (by sample id) and score what the files say.

    ``scorers`` add per-image columns to captions (reward, gold). ``per_image.jsonl`` and ``per_question.jsonl`` hold
    the scores of every unit.
    """
    files = _Files(folder)
    captions = _score_captions(files, split, predictions, scorers) if split.captions else None
    vqa = _score_vqa(files, split, predictions) if split.questions else None
    return SystemScores.resampled(captions, vqa, resamples=resamples)


def reward_scorer(reward: Reward, label: str) -> CaptionScorer:
    """Per-image scores of a reward (B,).

    Raises:
        RunFailed: (when called) the reward failed on a row.
    """

    def score(rows: Sequence[PromptRow], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
        from toolkit.rewards.base import RewardBatch
        from toolkit.runs.progress import progress

        batch = RewardBatch(
            rows=rows,
            completions=[prediction.text for prediction in predictions],
            ended=[prediction.ended for prediction in predictions],
            num_tokens=[prediction.num_tokens for prediction in predictions],
        )
        spans = [
            range(start, min(start + _REWARD_BATCH, len(rows)))
            for start in range(0, len(rows), _REWARD_BATCH)
        ]
        scores = np.concatenate(
            [reward(batch.take(list(span))).scores for span in progress(spans, len(spans), label)]
        )
        if not np.isfinite(scores).all():
            first = rows[int(np.flatnonzero(~np.isfinite(scores))[0])]
            raise RunFailed(
                f"the reward gave no score for {int((~np.isfinite(scores)).sum())} rows, first {first.sample_id}"
            )
        return scores

    return score


def gold_scorer(scenes: Mapping[Any, Scene]) -> CaptionScorer:
    """Per-image scores (B,) of the scenes' hidden criterion, 0 to 1, from the scene of every image."""
    from toolkit.data.scenes.gold import gold

    def score(rows: Sequence[PromptRow], predictions: Sequence[Prediction]) -> NDArray[np.float64]:
        pairs = zip(rows, predictions, strict=True)
        return np.array([gold(scenes[row.image_id], prediction.text) for row, prediction in pairs])

    return score


def _score_captions(
    files: _Files,
    split: TestSplit,
    predictions: Mapping[str, Prediction],
    scorers: Mapping[str, CaptionScorer],
) -> CaptionResult:
    ordered = [predictions[row.sample_id] for row in split.captions]
    ids: list[Id] = [row.image_id for row in split.captions]
    write_results(
        files.captions, "caption", zip(ids, (prediction.text for prediction in ordered), strict=True)
    )
    texts = read_results(files.captions, "caption", expected=ids)
    result = score_caption_results(split.references, texts)
    columns = {name: scorer(split.captions, ordered) for name, scorer in scorers.items()}
    result = result.with_columns(mean_tokens=[prediction.content_tokens for prediction in ordered], **columns)
    _write_lines(files.folder / "per_image.jsonl", _per_image(result))
    return result


def _score_vqa(files: _Files, split: TestSplit, predictions: Mapping[str, Prediction]) -> VqaResult:
    ids = [question_id(row) for row in split.questions]
    answers = (predictions[row.sample_id].text for row in split.questions)
    write_results(files.vqa, "vqa", zip(ids, answers, strict=True))
    texts = read_results(files.vqa, "vqa", expected=ids)
    result = score_vqa_results(split.annotations_file()["annotations"], texts)
    lines = (
        {"question_id": identity, "answer": answer, "accuracy": float(accuracy)}
        for identity, answer, accuracy in zip(
            result.question_ids, result.answers, result.accuracies, strict=True
        )
    )
    _write_lines(files.folder / "per_question.jsonl", lines)
    return result


def _per_image(result: CaptionResult) -> Iterator[dict[str, Any]]:
    for position, (identity, caption) in enumerate(zip(result.image_ids, result.captions, strict=True)):
        values = {name: float(column[position]) for name, column in result.columns.items()}
        yield {"image_id": identity, "caption": caption, **values}


def _write_lines(path: Path, lines: Iterator[Mapping[str, Any]]) -> None:
    atomic_write_text(path, "".join(json.dumps(json_safe(line), ensure_ascii=False) + "\n" for line in lines))

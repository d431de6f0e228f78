"""Decoding of prompt rows, in batches of similar length, resumable after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.evaluation.decoding import Strategy, sample_ids
from toolkit.evaluation.predictions import Prediction, PredictionFile
from toolkit.evaluation.split import prompt_text
from toolkit.records import PromptRow

if TYPE_CHECKING:
    from toolkit.config.schema import DecodingSpec, ModelSpec
    from toolkit.models.loading import LoadedVlm

__all__ = ["checkpoint_fingerprint", "decoding_header", "is_complete", "missing_batches", "predict_rows"]


def predict_rows(
    vlm: LoadedVlm,
    rows: Sequence[PromptRow],
    *,
    decoding: DecodingSpec,
    label: str,
    file: PredictionFile | None = None,
    after_batch: Callable[[], None] | None = None,
) -> list[Prediction]:
    """Decode one completion a row, or several samples of it, as ``decoding`` says.

    Batches are formed over rows sorted by the length of their prompts, so that little is padded; which rows share
    a batch depends on ``rows`` and ``decoding`` alone. With ``file``, whole batches found there are not decoded
    again, and each new batch is appended as it finishes; then ``after_batch`` is called, which may raise to stop.

    Returns:
        One prediction a row, in the order of ``rows``; of several samples the first. ``file`` keeps all of them, by the
        ids of ``toolkit.evaluation.decoding.sample_ids``.
    """
    from toolkit.runs.progress import progress

    done = file.read() if file is not None else {}
    batches = list(_batches(rows, decoding.batch_size))
    samples = Strategy.of(decoding).samples
    names = {row.sample_id: sample_ids(row.sample_id, samples) for row in rows}
    whole = {key for key, own in names.items() if all(name in done for name in own)}
    finished = [batch for batch in batches if all(row.sample_id in whole for row in batch)]
    predictions = {name: done[name] for batch in finished for row in batch for name in names[row.sample_id]}
    if file is not None:
        file.keep(predictions.values())
    remaining = [batch for batch in batches if batch[0].sample_id not in predictions]
    for batch in progress(remaining, len(remaining), label):
        decoded = _decode(vlm, batch, decoding)
        if file is not None:
            file.append(decoded)
        predictions.update((prediction.sample_id, prediction) for prediction in decoded)
        if after_batch is not None:
            after_batch()
    return [predictions[row.sample_id] for row in rows]


def missing_batches(
    file: PredictionFile, rows: Sequence[PromptRow], decoding: DecodingSpec
) -> list[list[PromptRow]]:
    """The batches of ``predict_rows`` that ``file`` does not hold whole."""
    done = file.read()
    samples = Strategy.of(decoding).samples
    return [
        batch
        for batch in _batches(rows, decoding.batch_size)
        if any(name not in done for row in batch for name in sample_ids(row.sample_id, samples))
    ]


def is_complete(file: PredictionFile, rows: Sequence[PromptRow], decoding: DecodingSpec) -> bool:
    """Whether every row has its predictions, so that the model need not be loaded."""
    done = file.read()
    samples = Strategy.of(decoding).samples
    return all(name in done for row in rows for name in sample_ids(row.sample_id, samples))


def decoding_header(model: ModelSpec, rows: Sequence[PromptRow], decoding: DecodingSpec) -> dict[str, Any]:
    """What the predictions of ``rows`` by ``model`` depend on, for ``PredictionFile``."""
    sampled = {"seed": decoding.seed} if Strategy.of(decoding).temperature > 0 else {}
    return {
        "checkpoint": model.model_dump(mode="json"),
        "weights": checkpoint_fingerprint(model.id),
        "rows": _rows_digest(rows),
        "max_new_tokens": decoding.max_new_tokens,
        "batch_size": decoding.batch_size,
        "strategy": decoding.strategy,
        **sampled,
    }


def checkpoint_fingerprint(model_id: str) -> str | None:
    """SHA-256 over the safetensors files of a local checkpoint (16 hex digits); None for a hub id."""
    folder = Path(model_id)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _decode(vlm: LoadedVlm, batch: Sequence[PromptRow], decoding: DecodingSpec) -> list[Prediction]:
    from toolkit.data.images import load_image
    from toolkit.models.encoding import encode_prompt
    from toolkit.models.generation import generate

    prompts = [encode_prompt(vlm, row.prompt, [load_image(image) for image in row.images]) for row in batch]
    strategy = Strategy.of(decoding)
    sampled = strategy.temperature > 0
    completions = generate(
        vlm,
        prompts,
        max_new_tokens=decoding.max_new_tokens,
        temperature=strategy.temperature,
        num_samples=strategy.samples,
        batch_size=len(prompts),
        row_seeds=[s for row in batch for s in strategy.seeds(row.sample_id, decoding.seed)]
        if sampled
        else None,
        num_beams=strategy.beams,
    )
    names = [name for row in batch for name in sample_ids(row.sample_id, strategy.samples)]
    return [
        Prediction(name, completion.text, len(completion.token_ids), completion.ended)
        for name, completion in zip(names, completions, strict=True)
    ]


def _batches(rows: Sequence[PromptRow], size: int) -> Iterator[list[PromptRow]]:
    ordered = sorted(rows, key=lambda row: len(prompt_text(row.prompt)))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _rows_digest(rows: Sequence[PromptRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        images = [
            hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else str(image)
            for image in row.images
        ]
        digest.update(json.dumps([row.sample_id, prompt_text(row.prompt), images]).encode())
    return digest.hexdigest()[:16]

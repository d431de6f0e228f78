"""Decoding shared by the processes that a launcher started. Scoring stays with the first of them.

Each process decodes every n-th batch into a file of its own; the first one puts them together. The batches are those of
a single process, so that the texts are, too. Shares of an interrupted run are kept, whatever the number of processes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import RunFailed
from toolkit.evaluation.predict import decoding_header, missing_batches, predict_rows
from toolkit.evaluation.predictions import PredictionFile
from toolkit.records import PromptRow
from toolkit.runs.processes import process_count

if TYPE_CHECKING:
    from toolkit.config.schema import DecodingSpec, ModelSpec

__all__ = ["DecodingTask", "decode_together"]


@dataclass(frozen=True, slots=True)
class DecodingTask:
    """A checkpoint and the rows it is to complete; predictions go to ``folder``."""

    model: ModelSpec
    rows: Sequence[PromptRow]
    folder: Path
    label: str


def decode_together(
    tasks: Sequence[DecodingTask], decoding: DecodingSpec, after_batch: Callable[[], None] | None = None
) -> None:
    """Decode all ``tasks`` with all processes; every ``predictions.jsonl`` is complete when this returns.

    Raises:
        CheckpointError: a model is no checkpoint.
        RunFailed: the processes of the launcher did not find each other: each would decode everything.
    """
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())  # joins the group and takes this process's device
    if state.num_processes != process_count():
        raise RunFailed(
            f"the launcher started {process_count()} processes, and {state.num_processes} found each other",
            remedy="run the evaluation without --launch, and report this with the output of vlm-rlhf doctor",
        )
    for task in tasks:
        header = decoding_header(task.model, task.rows, decoding)
        whole = PredictionFile(task.folder / "predictions.jsonl", header)
        if state.is_main_process:
            _gather(whole)
        state.wait_for_everyone()
        batches = missing_batches(whole, task.rows, decoding)[state.process_index :: state.num_processes]
        own = [row for batch in batches for row in batch]
        if own:
            _decode(task, own, decoding, _share(whole, state.process_index), after_batch)
        state.wait_for_everyone()
        if state.is_main_process:
            _gather(whole)
        state.wait_for_everyone()


def _decode(
    task: DecodingTask,
    rows: Sequence[PromptRow],
    decoding: DecodingSpec,
    file: PredictionFile,
    after_batch: Callable[[], None] | None,
) -> None:
    from toolkit.models.loading import load_vlm

    vlm = load_vlm(task.model, trainable=False)
    try:
        predict_rows(vlm, rows, decoding=decoding, label=task.label, file=file, after_batch=after_batch)
    finally:
        del vlm
        gc.collect()  # the next system's weights need the room


def _share(whole: PredictionFile, process: int) -> PredictionFile:
    return PredictionFile(whole.path.with_name(f"predictions.process{process}.jsonl"), whole.header)


def _gather(whole: PredictionFile) -> None:
    """Put the predictions of all shares into the one file, and remove the shares."""
    shares = sorted(whole.path.parent.glob("predictions.process*.jsonl"))
    if not shares:
        return
    done = whole.read()
    for path in shares:
        done.update(PredictionFile(path, whole.header).read())
    whole.keep(done.values())
    for path in shares:
        path.unlink()

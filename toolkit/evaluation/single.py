"""One checkpoint on one benchmark: an ``eval`` recipe is made from a few words and run as any other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolkit.config.schema import (
    DecodingSpec,
    EvalRecipe,
    ModelSpec,
    QuantizationSpec,
    RunSpec,
    SystemSpec,
    TestDataSpec,
)
from toolkit.errors import UsageError
from toolkit.evaluation.benchmarks import Benchmark, locate

__all__ = ["benchmark_recipe", "evaluate_checkpoint", "named_summary", "system_name"]


def benchmark_recipe(
    checkpoint: str,
    benchmark: Benchmark,
    data: Path,
    *,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    four_bit: bool = False,
    shuffled: bool = False,
    decoding: str | None = None,
    seed: int = 0,
) -> EvalRecipe:
    """The recipe that evaluates ``checkpoint`` on ``benchmark``.

    Args:
        checkpoint: model directory, adapter directory or hub id.
        benchmark: which files, prompt and decoding.
        data: the data set's folder.
        out: the evaluation folder to write.
        split: the split; the benchmark's own by default.
        limit: first so many images and questions.
        four_bit: hold the language model in 4 bits.
        shuffled: decode with shuffled images as well, for the ``blind`` row.
        decoding: ``greedy``, ``beam:K`` or ``sample:T,n``; the benchmark's own by default.
        seed: of the samples.

    Raises:
        DataError: files of the benchmark are missing.
        UsageError: ``decoding`` is none of these.
    """
    chosen = {**benchmark.decoding.model_dump(), "seed": seed}
    try:
        spec = DecodingSpec.model_validate({**chosen, "strategy": decoding} if decoding else chosen)
    except ValidationError as error:
        raise UsageError(
            f"--decoding {decoding}: expected greedy, beam:K or sample:T,n", remedy="for example sample:0.7,5"
        ) from error
    files = locate(benchmark, data, split=split, limit=limit)
    name = system_name(checkpoint)
    model = ModelSpec(id=checkpoint, quantization=QuantizationSpec() if four_bit else None)
    return EvalRecipe(
        stage="eval",
        systems=[SystemSpec(name=name, model=model)],
        data=TestDataSpec(root=files.root, test=files.sources),
        scenes=files.scenes,
        blind_from=name if shuffled else None,
        generation=spec,
        run=RunSpec(output_dir=str(out)),
    )


def evaluate_checkpoint(recipe: EvalRecipe, *, benchmark: str) -> dict[str, Any]:
    """Run ``recipe`` in its output directory and return the summary, which names the benchmark.

    Decoded batches of an earlier, interrupted run of the same checkpoint are kept.

    Raises:
        CheckpointError: the directory belongs to another run, or the checkpoint is none.
    """
    from toolkit.evaluation.stage import evaluate_systems
    from toolkit.runs.directory import RunDirectory

    run = RunDirectory(recipe.run.output_dir)
    run.prepare(recipe, resume=True)
    try:
        with run.stop.installed():
            evaluate_systems(recipe, run)
        return named_summary(recipe, benchmark=benchmark)
    finally:
        run.release()


def named_summary(recipe: EvalRecipe, *, benchmark: str) -> dict[str, Any]:
    """The summary that a finished run of ``recipe`` left, told in its file which benchmark and checkpoint it is of."""
    from toolkit.evaluation.summary import write_summary

    path = Path(recipe.run.output_dir) / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    named = {"benchmark": benchmark, "checkpoint": recipe.systems[0].model.id}
    summary = named | {key: value for key, value in summary.items() if key not in named}
    write_summary(path, summary)
    return summary


def system_name(checkpoint: str) -> str:
    """A name for tables and folders from a path or hub id: ``out/quickstart/sft/final`` becomes ``sft``."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..", "final")]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1] if parts else "model").strip("-.")
    return f"{cleaned}-system" if cleaned in ("blind", "human") else cleaned or "model"

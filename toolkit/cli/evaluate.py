"""``vlm-rlhf eval``: score a checkpoint on a benchmark."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.config.schema import EvalRecipe

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``eval CHECKPOINT --benchmark NAME --data PATH [--split S] [--limit N] [--out DIR]`` and switches."""
    parser = subparsers.add_parser(
        "eval",
        help="score a checkpoint on a benchmark",
        description="Decode a benchmark and score it, with intervals and baselines. Writes an evaluation "
        "folder: official result files, scores of every image, summary.json.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="model directory, adapter directory or hub id"
    )
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        required=True,
        help="a name (coco, vqav2, textvqa, pope …) or a YAML file",
    )
    parser.add_argument("--data", metavar="PATH", required=True, help="the data set's folder or caption file")
    parser.add_argument("--split", metavar="S", help="split of the data set (the benchmark's own)")
    parser.add_argument("--limit", metavar="N", type=int, help="first so many images and questions")
    parser.add_argument("--out", metavar="DIR", help="evaluation folder (out/eval/BENCHMARK-CHECKPOINT)")
    parser.add_argument("--four-bit", action="store_true", help="hold the language model in 4 bits (NF4)")
    parser.add_argument(
        "--shuffled", action="store_true", help="also decode with shuffled images, for the row blind"
    )
    parser.add_argument(
        "--decoding",
        metavar="HOW",
        help="greedy, beam:K, or sample:T,n (temperature, samples a prompt: the first is scored, all serve diversity)",
    )
    parser.add_argument(
        "--preset",
        metavar="TOOL",
        help="prompt, tokens and rule of another tool where the benchmark has them: lmms",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=1,
        help="share the decoding among so many processes, on as many GPUs where there are some (1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampled decoding (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print summary.json and nothing else")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.errors import UsageError
    from toolkit.evaluation.benchmarks import load_benchmark
    from toolkit.evaluation.single import benchmark_recipe, evaluate_checkpoint, named_summary, system_name
    from toolkit.evaluation.summary import summary_table
    from toolkit.models.sources import find_source
    from toolkit.runs.metrics import json_safe

    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit: expected at least 1, found {arguments.limit}")
    if arguments.processes < 1:
        raise UsageError(f"--processes: expected at least 1, found {arguments.processes}")
    benchmark = load_benchmark(arguments.benchmark)
    if arguments.preset:
        benchmark = benchmark.with_preset(arguments.preset)
    find_source(arguments.checkpoint)  # told before any data are read
    kind = Path(arguments.benchmark).stem
    default = Path("out") / "eval" / f"{kind}-{system_name(arguments.checkpoint)}"
    out = Path(arguments.out) if arguments.out else default
    recipe = benchmark_recipe(
        arguments.checkpoint,
        benchmark,
        Path(arguments.data),
        out=out,
        split=arguments.split,
        limit=arguments.limit,
        four_bit=arguments.four_bit,
        shuffled=arguments.shuffled,
        decoding=arguments.decoding,
        seed=arguments.seed,
    )
    if arguments.processes > 1:
        code = _run_together(recipe, arguments.processes)
        if code != 0:
            return code
        summary = named_summary(recipe, benchmark=arguments.benchmark)
    else:
        with libraries_on_stderr():
            summary = evaluate_checkpoint(recipe, benchmark=arguments.benchmark)
    if arguments.json:
        sys.stdout.write(json.dumps(json_safe(summary), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{benchmark.title}\n{summary_table(summary)}\n{out / 'summary.json'}\n")
    return 0


def _run_together(recipe: EvalRecipe, processes: int) -> int:
    """Run the recipe as ``vlm-rlhf run --launch ddp --processes N`` does, going on where an earlier run stopped."""
    from toolkit.cli.launching import run_child, stage_command
    from toolkit.config.loading import resolved_yaml
    from toolkit.runs.directory import RunDirectory

    RunDirectory(recipe.run.output_dir).check(recipe, resume=True)  # told before any process starts
    with tempfile.TemporaryDirectory(prefix="vlm-rlhf-") as folder:
        file = Path(folder) / "eval.yaml"
        file.write_text(resolved_yaml(recipe), encoding="utf-8")
        command = stage_command("eval", file, [], launch="ddp", processes=processes, resume=True)
        with _children_on_stderr():
            return run_child(command)


@contextmanager
def _children_on_stderr() -> Iterator[None]:
    """Processes started meanwhile print to stderr: stdout holds this command's results alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

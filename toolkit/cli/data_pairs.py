"""``vlm-rlhf data pairs``: sample K completions a prompt from a checkpoint, rank them, write preference rows."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "pairs", "recipe_values"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pairs`` with its default ``handler(arguments) -> exit code``."""
    about = (
        "Sample completions to the prompts of a file and rank them by a reward or metric. Writes OUT/final/train.jsonl "
        "with its pictures. For more (several terms, validation prompts): a recipe with stage: preferences."
    )
    parser = commands.add_parser(
        "pairs", help="preference pairs from a checkpoint's samples", description=about
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="model directory, adapter directory or hub id"
    )
    parser.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE", help="prompt rows (JSON lines)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="run directory")
    parser.add_argument(
        "--rank-by",
        required=True,
        metavar="TERM",
        help="cider, bleu, vqa_accuracy, learned, … or FILE.py:function",
    )
    parser.add_argument("--reward-model", metavar="DIR", help="final/ of a reward run, for --rank-by learned")
    parser.add_argument(
        "--samples", type=int, default=4, metavar="K", help="completions a prompt; default: %(default)s"
    )
    parser.add_argument("--pairs-per-prompt", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: %(default)s")
    parser.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--min-margin",
        type=float,
        default=0.0,
        metavar="X",
        help="least difference of scores; default: %(default)s",
    )
    parser.add_argument(
        "--balance-lengths",
        action="store_true",
        help="drop pairs until longer and shorter texts win equally often",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="first so many prompts")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--four-bit", action="store_true", help="hold the language model in 4 bits (NF4)")
    parser.set_defaults(handler=pairs)


def recipe_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ``preferences`` recipe that the arguments stand for."""
    term = {
        "term": arguments.rank_by,
        **({"model": arguments.reward_model} if arguments.reward_model else {}),
    }
    source = {"kind": "rows", "file": arguments.prompts.name}
    return {
        "stage": "preferences",
        "model": {
            "id": arguments.checkpoint,
            **({"quantization": {"bits": 4}} if arguments.four_bit else {}),
        },
        "data": {
            "root": str(arguments.prompts.parent),
            "train": [source | ({"limit": arguments.limit} if arguments.limit else {})],
        },
        "completions_per_prompt": arguments.samples,
        "pairs_per_prompt": arguments.pairs_per_prompt,
        "generation": {
            "temperature": arguments.temperature,
            "max_new_tokens": arguments.max_new_tokens,
        },
        "rank_by": [term],
        "min_margin": arguments.min_margin,
        "balance_lengths": arguments.balance_lengths,
        "flip_fraction": 0.0,
        "run": {"output_dir": arguments.out, "seed": arguments.seed},
    }


def pairs(arguments: argparse.Namespace) -> int:
    """Check the recipe and run it as ``python -m recipes.preferences``; its exit code."""
    from toolkit.cli.launching import quoted, run_child, stage_command
    from toolkit.config.checks import check_recipe
    from toolkit.config.loading import parse_recipe, resolved_yaml

    recipe = parse_recipe(recipe_values(arguments))
    check_recipe(recipe)
    with tempfile.TemporaryDirectory(prefix="vlm-rlhf-") as folder:
        file = Path(folder) / "pairs.yaml"
        file.write_text(resolved_yaml(recipe), encoding="utf-8")
        command = stage_command("preferences", file, [])
        sys.stderr.write(f"{quoted(command)}\n")
        return run_child(command)

"""``vlm-rlhf quickstart``: the whole chain on the bundled sample."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``quickstart [--smoke] [--seed N] [--out DIR]``."""
    parser = subparsers.add_parser(
        "quickstart",
        help="the whole chain on the bundled sample",
        description=(
            "Fine-tuning, preferences, reward model, PPO, DPO, evaluation and report on generated scenes, on a CPU. "
            "Called again with the same options it goes on where it was stopped."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--smoke", action="store_true", help="the same on very small input, in about two minutes"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of data, fine-tuning, reward model and RL"
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (default: the recipe's run.output_dir)")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.cli.run import start

    overrides = []
    if arguments.seed is not None:
        overrides.append(f"run.seed={arguments.seed}")
    if arguments.out is not None:
        overrides.append(f"run.output_dir={_yaml_text(arguments.out)}")
    return start(f"scenes/{'smoke' if arguments.smoke else 'quickstart'}", overrides, resume=True)


def _yaml_text(text: str) -> str:
    """A text that YAML reads back as text, whatever it looks like."""
    import json

    return json.dumps(text, ensure_ascii=False)

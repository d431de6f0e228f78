"""``python -m reward_models score|rank CHECKPOINT --image F --prompt T --response T …`` and ``calibrate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_SPREAD_DIGITS = 4
_FIGURES = ("score_mean", "score_std", "held_out_accuracy", "held_out_pairs")


def main(argv: Sequence[str] | None = None) -> int:
    """Score or rank responses to a prompt about pictures, or measure a checkpoint anew; returns the exit code.

    ``score`` keeps the order of the responses, ``rank`` sorts them, best first. Scores are log-odds: the
    difference of two says how likely a rater prefers the first.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    from toolkit.cli.guard import guarded
    from toolkit.runs.logging import setup_logging
    from toolkit.runs.offline import quiet_environment

    quiet_environment()
    setup_logging()
    command = _calibrate if arguments.command == "calibrate" else _run
    return guarded(lambda: command(arguments), debug=arguments.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reward_models",
        description="Use a trained reward model.",
        epilog="Exit codes: 0, 1, 2 or 3.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("score", "one score a response, in order"), ("rank", "responses, best first")):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("checkpoint", metavar="CHECKPOINT", help="final/ directory of a reward run")
        command.add_argument(
            "--image", action="append", default=[], metavar="FILE", help="picture; may be repeated"
        )
        command.add_argument("--prompt", default="Describe the image.", metavar="TEXT", help="what was asked")
        command.add_argument(
            "--response", action="append", required=True, metavar="TEXT", help="may be repeated"
        )
        _add_common(command)
    _add_calibrate(commands)
    return parser


def _add_calibrate(commands: Any) -> None:
    about = (
        "Measure mean, spread and accuracy of the scores on the base, precision, template and processor that are "
        "there now, and write a checkpoint that loads with them; the old one stays as it is."
    )
    command = commands.add_parser(
        "calibrate", help="measure the scores of a checkpoint anew", description=about
    )
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="final/ directory of a reward run")
    command.add_argument(
        "--pairs", type=Path, required=True, metavar="FILE", help="held-out preference rows (JSON lines)"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="new; gets the checkpoint")
    command.add_argument("--base", metavar="MODEL", help="another base model: hub id or directory")
    command.add_argument(
        "--bits", type=int, choices=(4, 8, 16), help="hold the base in so many bits (16: whole)"
    )
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the base's weights")
    _add_common(command)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    command.add_argument("--debug", action="store_true", help="show tracebacks of expected errors too")


def _run(arguments: argparse.Namespace) -> int:
    from reward_models.config import read_config
    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.data.files import escaped
    from toolkit.data.images import check_image
    from toolkit.errors import DataError, RunFailed
    from toolkit.records import image_prompt

    read_config(Path(arguments.checkpoint))  # a wrong folder is refused before torch is loaded
    images = tuple(Path(name) for name in arguments.image)
    problems = [f"{escaped(path)}: {problem}" for path in images if (problem := check_image(path))]
    if problems:
        raise DataError("--image", problems, remedy="give an image file that opens")
    prompt = image_prompt(arguments.prompt, images=len(images))
    count = len(arguments.response)
    with libraries_on_stderr():
        from reward_models.scorer import LearnedReward

        reward = LearnedReward.load(arguments.checkpoint)
        scores = reward.score([prompt] * count, [images] * count, arguments.response).tolist()
    rows = [
        {"response": text, "score": score} for text, score in zip(arguments.response, scores, strict=True)
    ]
    if any(not math.isfinite(row["score"]) for row in rows):
        raise RunFailed(f"the reward model {arguments.checkpoint} gives scores that are no finite numbers")
    if arguments.command == "rank":
        rows.sort(key=lambda row: -row["score"])
    if arguments.json:
        sys.stdout.write(json.dumps({"checkpoint": arguments.checkpoint, "responses": rows}) + "\n")
    else:
        sys.stdout.writelines(
            f"{row['score']:+.{_SPREAD_DIGITS}f}  {escaped(row['response'])}\n" for row in rows
        )
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    from reward_models.config import read_config
    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.config.schema import RowsSource
    from toolkit.data.sources import load_preference_rows

    read_config(Path(arguments.checkpoint))
    pairs = arguments.pairs
    rows = load_preference_rows([RowsSource(kind="rows", file=pairs.name)], pairs.parent)
    with libraries_on_stderr():
        from reward_models.calibration import Precision, recalibrate

        precision = Precision(dtype=arguments.dtype, bits=arguments.bits)
        found = recalibrate(
            Path(arguments.checkpoint), rows, arguments.out, base=arguments.base, precision=precision
        )
    if arguments.json:
        figures = {
            name: {field: getattr(config, field) for field in _FIGURES}
            for name, config in (("before", found.before), ("after", found.after))
        }
        sys.stdout.write(json.dumps({"out": str(arguments.out), "reasons": found.reasons, **figures}) + "\n")
        return 0
    sys.stdout.writelines(f"differs: {reason}\n" for reason in found.reasons or ["in nothing"])
    for field in _FIGURES:
        before, after = (getattr(config, field) for config in (found.before, found.after))
        sys.stdout.write(f"{field}: {_shown(before)} → {_shown(after)}\n")
    sys.stdout.write(f"written to {arguments.out}\n")
    return 0


def _shown(value: float | None) -> str:
    if value is None:
        return "not measured"
    return str(value) if isinstance(value, int) else f"{value:.{_SPREAD_DIGITS}f}"


if __name__ == "__main__":
    raise SystemExit(main())

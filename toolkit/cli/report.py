"""``vlm-rlhf report``: one self-contained HTML page about a run or a whole chain."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``report RUN [--out FILE] [--samples N]``."""
    parser = subparsers.add_parser(
        "report",
        help="one self-contained HTML page about a run",
        description="Write report.html: scores with intervals, differences, curves, samples with their pictures.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run directory, an evaluation folder or a pipeline's folder"
    )
    parser.add_argument("--out", metavar="FILE", help="where to write the page (RUN/report.html)")
    parser.add_argument("--samples", type=int, default=24, metavar="N", help="how many samples to show (24)")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.errors import UsageError
    from toolkit.evaluation.report import write_report

    if arguments.samples < 0:
        raise UsageError(f"--samples: expected 0 or more, found {arguments.samples}")
    out = Path(arguments.out) if arguments.out else None
    page = write_report(Path(arguments.run), out=out, samples=arguments.samples)
    sys.stdout.write(f"{page}\n")
    return 0

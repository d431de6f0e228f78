"""``vlm-rlhf compare``: paired differences of two runs, evaluations or result files, with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``compare A B [--references FILE] [--group-by COLUMN] [--resamples N] [--json]``."""
    parser = subparsers.add_parser(
        "compare",
        help="paired differences of two runs, with intervals",
        description="Score two systems on the same images and report A minus B with 95 % paired-bootstrap intervals.",
        allow_abbrev=False,
    )
    parser.add_argument("a", metavar="A", help="a run, evaluation folder, systems/NAME folder or result file")
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument(
        "--references", metavar="FILE", help="COCO captions or VQA annotations; folders bring their own"
    )
    parser.add_argument(
        "--group-by",
        metavar="COLUMN",
        help="also by subgroup: a column of the annotations (question_type), the references' rows or --groups",
    )
    parser.add_argument(
        "--groups", metavar="FILE", help="rows with image_id or question_id and the column of --group-by"
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap resamples (1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.errors import UsageError
    from toolkit.evaluation.compare import compare, comparison_table
    from toolkit.runs.metrics import json_safe

    if arguments.resamples < 1:
        raise UsageError(f"--resamples: expected at least 1, found {arguments.resamples}")
    if arguments.groups and not arguments.group_by:
        raise UsageError("--groups: name the column with --group-by COLUMN")
    found = compare(
        Path(arguments.a),
        Path(arguments.b),
        references=Path(arguments.references) if arguments.references else None,
        resamples=arguments.resamples,
        group_by=arguments.group_by,
        groups=Path(arguments.groups) if arguments.groups else None,
    )
    if arguments.json:
        told = json_safe({"comparisons": [comparison.as_dict() for comparison in found]})
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(comparison_table(found))
    return 0

"""``vlm-rlhf doctor``: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``doctor [--json]``."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine has and lacks",
        description="Exit code 3 when something essential is missing or broken, 0 otherwise.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.runs.diagnosis import diagnose

    with libraries_on_stderr():
        findings = diagnose()
    lacking = any(finding.status == "fail" for finding in findings)
    if arguments.json:
        rows = [{"name": f.name, "status": f.status, "found": f.found, "remedy": f.remedy} for f in findings]
        sys.stdout.write(json.dumps({"ok": not lacking, "checks": rows}, ensure_ascii=False) + "\n")
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            sys.stdout.write(f"{finding.status:<4}  {finding.name:<{width}}  {finding.found}\n")
            if finding.remedy:
                sys.stdout.write(f"{'':<4}  {'':<{width}}  → {finding.remedy}\n")
    return 3 if lacking else 0

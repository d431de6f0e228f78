"""``vlm-rlhf data convert``: preference data of other formats as rows of this toolkit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["FORMATS", "add_parser", "convert"]

FORMATS = ("trl", "rlhf-v", "rlaif-v", "vlfeedback", "llava-rlhf", "hh", "flickr8k-ratings", "nlvr", "vsr")
"""The keys of ``toolkit.data.converters.CONVERTERS``, which is not loaded for ``--help``."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``convert`` with its default ``handler(arguments) -> exit code``."""
    about = "Write DIR/train.jsonl (and val.jsonl) with the pictures in DIR/images, from preference data of FORMAT."
    parser = commands.add_parser("convert", help="preference data of other formats", description=about)
    parser.add_argument(
        "source", type=Path, metavar="FILE", help=".json, .jsonl (also .gz), .parquet or .txt"
    )
    parser.add_argument("--from", dest="kind", required=True, choices=FORMATS, help="the format of FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the pictures; default: that of FILE"
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="Flickr8k.token.txt, for Flickr8k's ratings in their .txt",
    )
    parser.add_argument(
        "--licence", metavar="TEXT", help="licence column; default: what the data card states"
    )
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.0,
        metavar="F",
        help="share of pictures (NLVR: of sentences) whose rows go to val.jsonl; default: %(default)s",
    )
    parser.add_argument(
        "--skip-faulty", action="store_true", help="leave out and count faulty rows and missing pictures"
    )
    parser.set_defaults(handler=convert)


def convert(arguments: argparse.Namespace) -> int:
    """Convert; what was written goes to stdout, what was left out to stderr. Exit code 0, or 2 through DataError."""
    from toolkit.data.convert import convert_preferences
    from toolkit.data.converters import Origin

    done = convert_preferences(
        arguments.source,
        arguments.kind,
        arguments.out,
        origin=Origin(arguments.images or arguments.source.parent, arguments.captions),
        licence=arguments.licence,
        val_share=arguments.val_share,
        skip_faulty=arguments.skip_faulty,
    )
    for problem in done.left_out:
        sys.stderr.write(f"left out: {problem}\n")
    for path, rows in done.files.items():
        sys.stdout.write(f"{path}: {rows} rows\n")
    if done.left_out:
        sys.stdout.write(f"{len(done.left_out)} rows or pictures left out\n")
    return 0

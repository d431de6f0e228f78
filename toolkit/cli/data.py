"""``vlm-rlhf data``: check data files, write the sample data, count document frequencies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli import data_convert, data_pairs, document_frequencies

if TYPE_CHECKING:
    from toolkit.data.checking import CheckedFile

__all__ = ["add_parser", "check", "sample"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``data`` and its subcommands, each with a default ``handler(arguments) -> exit code``."""
    parser = subparsers.add_parser(
        "data", help="check and make data", description="Check and make data files."
    )
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    _add_check(commands)
    _add_sample(commands)
    data_convert.add_parser(commands)
    data_pairs.add_parser(commands)
    document_frequencies.add_parser(commands)


def check(arguments: argparse.Namespace) -> int:
    """Check a file or folder; summary and warnings go to stdout. Exit code 0, or 2 through DataError."""
    from toolkit.data.checking import check_path

    checked = check_path(
        arguments.path, arguments.kind, images=arguments.images, annotations=arguments.annotations
    )
    for file in checked:
        sys.stdout.write(_summary(file))
    doubts = sum(len(file.warnings) for file in checked)
    sys.stdout.write(f"no errors, {doubts} warnings\n" if doubts else "no problems found\n")
    return 0


def sample(arguments: argparse.Namespace) -> int:
    """Write the sample data; what was written goes to stdout. Exit code 0, or 2 through UsageError."""
    from toolkit.data.scenes.writing import write_sample

    written = write_sample(
        arguments.out,
        seed=arguments.seed,
        rows=arguments.rows,
        split=arguments.split,
        combinations=arguments.combinations,
    )
    for split, images in written.items():
        folder = arguments.out if arguments.split else arguments.out / split
        sys.stdout.write(f"{split}: {images} images in {folder}\n")
    return 0


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Read a data file as a stage would, decode every picture, report all problems at once."
    parser = commands.add_parser("check", help="find what is wrong with a data file", description=about)
    parser.add_argument("path", type=Path, metavar="PATH", help="a file, or a folder of `data sample`")
    parser.add_argument(
        "--kind",
        required=True,
        choices=("caption", "vqa", "preference", "prompt"),
        help="captions of pictures, VQA questions (annotations beside them), preference rows or prompt rows",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the pictures (caption, vqa); default: `images` beside the file, or its own folder",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="VQA annotations; default: the file named like the questions",
    )
    parser.set_defaults(handler=check)


def _add_sample(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Draw scenes and write them as COCO captions, VQA questions and annotations, pairs and prompts."
    parser = commands.add_parser("sample", help="write the built-in sample data", description=about)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rows", type=_count, metavar="N", help="images of each split (default: 3000/400/1000)"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="write this split alone, into DIR itself"
    )
    parser.add_argument(
        "--combinations",
        choices=("seen", "unseen"),
        default="seen",
        help="unseen: colour and shape pairs that no training picture shows (test split only)",
    )
    parser.set_defaults(handler=sample)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number of at least 1")
    return int(text)


def _summary(file: CheckedFile) -> str:
    width = max(len(name) for name, _ in file.counts)
    lines = [f"  {name.ljust(width)}  {figure}\n" for name, figure in file.counts]
    lines += [f"  warning: {warning}\n" for warning in file.warnings]
    return f"{file.path}\n{''.join(lines)}"

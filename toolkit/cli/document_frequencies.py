"""``vlm-rlhf data document-frequencies``: count the n-grams of training references for CIDEr as a reward."""

from __future__ import annotations

import argparse
import sys

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``document-frequencies``; loads nothing but argparse."""
    parser = subparsers.add_parser(
        "document-frequencies",
        help="count the n-grams of reference captions, for CIDEr with fixed frequencies",
    )
    parser.add_argument(
        "--references", required=True, metavar="FILE", help="references of the training images"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the table to write, .safetensors")
    parser.add_argument(
        "--end-token", metavar="WORD", help="a word that closes every caption, as in self-critical training"
    )
    parser.add_argument(
        "--without-references",
        action="store_true",
        help="leave the prepared references out: a third of the size, but a reward prepares them at each start",
    )
    parser.set_defaults(handler=_count)


def _count(args: argparse.Namespace) -> int:
    from toolkit.errors import UsageError
    from toolkit.metrics import DocumentFrequencies
    from toolkit.metrics.files import read_references

    if not args.out.endswith(".safetensors"):
        raise UsageError(f"--out {args.out}: expected a name that ends in .safetensors")
    table = DocumentFrequencies.from_references(read_references(args.references), args.end_token)
    table.save(args.out, with_references=not args.without_references)
    sys.stdout.write(f"{args.out}: {table.counts.size} n-grams of {table.num_images} images\n")
    return 0

"""``vlm-rlhf score diversity`` and ``score clip``: what captions are like beside their references."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["add_parsers"]

Report = Callable[[Mapping[str, Any], bool], None]


def add_parsers(kinds: argparse._SubParsersAction[argparse.ArgumentParser], report: Report) -> None:
    """Add both kinds; ``report`` prints a summary as a table or as one JSON object."""
    diversity = kinds.add_parser("diversity", help="vocabulary, distinct n-grams, self-CIDEr, bad endings")
    diversity.add_argument(
        "--results",
        required=True,
        metavar="FILE",
        help='[{"image_id", "caption"}]; an image may come several times, for self-CIDEr',
    )
    diversity.add_argument(
        "--training", metavar="FILE", help="captions of training images, for the share of novel ones"
    )
    diversity.add_argument(
        "--document-frequencies",
        default="corpus",
        metavar="corpus|FILE",
        help="of self-CIDEr: counted in the results, or a table of `vlm-rlhf data document-frequencies`",
    )
    clip = kinds.add_parser("clip", help="CLIPScore and RefCLIPScore with a CLIP model of yours")
    clip.add_argument("--results", required=True, metavar="FILE", help='[{"image_id", "caption"}]')
    clip.add_argument(
        "--references", required=True, metavar="FILE", help="captions with each image's file_name"
    )
    clip.add_argument("--images", required=True, metavar="DIR", help="folder of the pictures")
    clip.add_argument("--model", required=True, metavar="CLIP", help="directory or hub id of a CLIP model")
    clip.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    clip.add_argument("--per-image", metavar="FILE", help="also write the scores of each image as JSON lines")
    for parser, scored in ((diversity, _diversity), (clip, _clip)):
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        parser.set_defaults(handler=_reported(scored, report))


def _reported(
    scored: Callable[[argparse.Namespace], Mapping[str, Any]], report: Report
) -> Callable[[argparse.Namespace], int]:
    def handler(args: argparse.Namespace) -> int:
        report(scored(args), args.json)
        return 0

    return handler


def _diversity(args: argparse.Namespace) -> Mapping[str, Any]:
    from toolkit.metrics import DocumentFrequencies
    from toolkit.metrics.diversity import score_diversity
    from toolkit.metrics.files import read_references

    samples = read_references(args.results)
    chosen = args.document_frequencies
    return score_diversity(
        samples,
        frequencies="corpus" if chosen == "corpus" else DocumentFrequencies.load(chosen),
        training=None
        if args.training is None
        else [text for texts in read_references(args.training).values() for text in texts],
    )


def _clip(args: argparse.Namespace) -> Mapping[str, Any]:
    from pathlib import Path

    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.data.coco import read_captions as read_items
    from toolkit.data.images import resolve_image
    from toolkit.errors import DataError
    from toolkit.metrics.files import align_ids, read_captions, write_jsonl
    from toolkit.models.clipscore import ClipScorer

    results = read_captions(args.results)
    problems: list[str] = []
    items = align_ids({item.image_id: item for item in read_items(Path(args.references), problems)}, results)
    problems += [f"image {key!r} has a caption and no references" for key in results if key not in items]
    if problems:
        raise DataError(args.references, problems)
    images = [resolve_image(Path(args.images), items[key].file_name) for key in results]
    with libraries_on_stderr():
        scorer = ClipScorer(args.model, device=args.device)
        scores = scorer.score(images, list(results.values()), [items[key].captions for key in results])
    reference = scores.ref_clip if scores.ref_clip is not None else scores.clip
    if args.per_image:
        rows = zip(results, scores.clip.tolist(), reference.tolist(), strict=True)
        write_jsonl(
            args.per_image, ({"image_id": key, "clip_score": a, "ref_clip_score": b} for key, a, b in rows)
        )
    means = {"clip_score": float(scores.clip.mean()), "ref_clip_score": float(reference.mean())}
    return {"num_images": len(results), "clip_model": args.model, **means}

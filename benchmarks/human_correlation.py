"""How well do caption metrics agree with people? Kendall's tau on Flickr8k-Expert and Flickr8k-CrowdFlower.

    VLM_RLHF_TEST_DATA=DIR python benchmarks/human_correlation.py [--meteor] [--clip MODEL --images DIR] [--json]

As in the papers: Expert leaves out captions that are references of the picture, takes every expert's judgement
(1 to 4) as a row of its own, and tau-c; CrowdFlower takes such a caption from the references, the share of yes, and
tau-b; both times 100. The data are rows ``{"image", "caption", "scores": [1 to 4]}`` or
``{"image", "caption", "yes_frac"}`` in ``human/flickr8k_expert.jsonl.gz`` and
``human/flickr8k_crowdflower.jsonl.gz``, references in ``flickr8k/captions.json.gz``. With ``--json`` one object:
set to metric to tau, with the numbers of rows and pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too

PUBLISHED = {  # Hessel et al. (2021), tables 1 and 2: the whole sets
    "flickr8k_expert": {"bleu_1": 32.3, "bleu_4": 30.8, "rouge_l": 32.3, "meteor": 41.8, "cider": 43.9},
    "flickr8k_crowdflower": {"bleu_4": 16.9, "rouge_l": 19.9, "meteor": 22.2, "cider": 24.6},
}
PUBLISHED["flickr8k_expert"] |= {"clip_score": 51.2, "ref_clip_score": 53.0}
PUBLISHED["flickr8k_crowdflower"] |= {"clip_score": 34.4, "ref_clip_score": 36.4}
_LEFT_OUT = (
    "flickr8k_expert",
)  # of this set the papers leave out captions that are references of the picture
SETS = {"flickr8k_expert": "c", "flickr8k_crowdflower": "b"}


@dataclass(frozen=True)
class Judged:
    """Captions of pictures with the judgements of people, and the references that are left for each."""

    images: list[str]
    captions: list[str]
    references: list[list[str]]
    judgements: list[list[float]]


def main() -> int:
    """Score the judged captions, print the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = os.environ.get("VLM_RLHF_TEST_DATA")
    parser.add_argument(
        "--data", type=Path, default=given, required=given is None, help="(VLM_RLHF_TEST_DATA)"
    )
    parser.add_argument("--meteor", action="store_true", help="METEOR too; needs Java")
    parser.add_argument("--clip", metavar="MODEL", help="CLIPScore too, with this model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures for --clip; others are left out")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    if arguments.clip and arguments.images is None:
        parser.error("--clip needs --images DIR")
    found: dict[str, Any] = {}
    for name, variant in SETS.items():
        judged = read_judged(arguments.data, name, arguments.images)
        columns = scored(judged, meteor=arguments.meteor, clip=arguments.clip, images=arguments.images)
        rows = sum(map(len, judged.judgements))
        taus = {metric: correlation(column, judged.judgements, variant) for metric, column in columns.items()}
        found[name] = {"pairs": len(judged.captions), "rows": rows, "variant": variant, "tau": taus}
    sys.stdout.write(json.dumps(found) + "\n" if arguments.json else tables(found))
    return 0


def read_judged(folder: Path, name: str, images: Path | None) -> Judged:
    """The judged captions whose picture has a reference left (and lies in ``images`` where given)."""
    from toolkit.metrics.files import read_json, read_references

    references = read_references(folder / "flickr8k" / "captions.json.gz")
    judged = Judged([], [], [], [])
    for row in read_json(folder / "human" / f"{name}.jsonl.gz"):
        image = row["image"]
        own = references.get(image, [])
        left = [text for text in own if text.strip() != row["caption"].strip()]
        told = name in _LEFT_OUT and len(left) < len(own)
        if not left or told or (images is not None and not (images / image).is_file()):
            continue
        judged.images.append(image)
        judged.captions.append(row["caption"])
        judged.references.append(left)
        judged.judgements.append(row["scores"] if "scores" in row else [row["yes_frac"]])
    return judged


def scored(
    judged: Judged, *, meteor: bool, clip: str | None, images: Path | None
) -> dict[str, Sequence[float]]:
    """Metric to a score for each judged caption."""
    from toolkit.metrics import score_captions
    from toolkit.metrics.java import java_metric

    references: dict[Any, list[str]] = dict(enumerate(judged.references))
    captions: dict[Any, str] = dict(enumerate(judged.captions))
    each = score_captions(references, captions).per_image
    columns: dict[str, Sequence[float]] = {
        name: [each[place][name] for place in captions] for name in ("bleu_1", "bleu_4", "rouge_l", "cider")
    }
    if meteor:
        values = java_metric("meteor", references, captions)[1]
        columns["meteor"] = [values[place] for place in captions]
    if clip is not None and images is not None:
        from toolkit.models.clipscore import ClipScorer

        pictures = [images / image for image in judged.images]
        scores = ClipScorer(clip).score(pictures, judged.captions, judged.references)
        columns["clip_score"] = scores.clip.tolist()
        if scores.ref_clip is not None:
            columns["ref_clip_score"] = scores.ref_clip.tolist()
    return columns


def correlation(column: Sequence[float], judgements: Sequence[Sequence[float]], variant: str) -> float:
    """Tau times 100; a caption's score is paired with each of its judgements."""
    from toolkit.metrics.correlation import kendall_tau

    scores = [score for score, own in zip(column, judgements, strict=True) for _ in own]
    return 100 * kendall_tau(scores, [value for own in judgements for value in own], variant)


def tables(found: dict[str, Any]) -> str:
    """The correlations beside those of the literature."""
    lines = []
    for name, part in found.items():
        lines.append(
            f"{name}: {part['pairs']} captions, {part['rows']} judgements, tau-{part['variant']} x 100"
        )
        for metric, tau in part["tau"].items():
            published = PUBLISHED[name].get(metric)
            lines.append(f"  {metric:16}{tau:8.1f}" + (f"   (published {published})" if published else ""))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

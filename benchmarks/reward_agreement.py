"""Does a learned reward agree with people? Kendall's tau of CIDEr, a reward model and their sum on Flickr8k-Expert.

    VLM_RLHF_TEST_DATA=DIR python benchmarks/reward_agreement.py --reward DIR --images DIR [--only val.jsonl] [--json]

Only photographs that lie in ``--images`` count; with ``--only``, only those of the rows in that file (the photographs
the reward model was not trained on, from ``vlm-rlhf data convert``). Every expert's judgement is a row of its own,
tau-c times 100, captions that are references of the picture are left out, as ``human_correlation.py`` and the papers
do. The composite is the sum of both scores, each standardised over the captions. With ``--json`` one object: the name
of the score to ``{"tau", "low", "high"}`` with 95 % intervals over photographs, and the numbers of captions and
photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]  # a checkout that is not installed serves too

from human_correlation import Judged, correlation, read_judged, scored  # noqa: E402 - beside this file

_RESAMPLES = 300


def main() -> int:
    """Score the judged captions, print the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = os.environ.get("VLM_RLHF_TEST_DATA")
    parser.add_argument(
        "--data", type=Path, default=given, required=given is None, help="(VLM_RLHF_TEST_DATA)"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs")
    parser.add_argument("--reward", type=Path, required=True, metavar="DIR", help="final/ of a reward run")
    parser.add_argument(
        "--only", type=Path, metavar="FILE", help="rows whose image_id counts, all others do not"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    judged = read_judged(arguments.data, "flickr8k_expert", arguments.images)
    if arguments.only is not None:
        lines = arguments.only.read_text(encoding="utf-8").splitlines()
        judged = _selected(judged, {json.loads(line)["image_id"] for line in lines})
    if not judged.captions:
        parser.error("no judged caption has its photograph in --images (and in --only)")
    found = agreement(judged, arguments.reward, arguments.images)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    sys.stdout.write(f"{found['captions']} captions of {found['photographs']} photographs, tau-c x 100\n")
    for name, tau in found["tau"].items():
        sys.stdout.write(f"  {name:12}{tau['tau']:8.1f}   [{tau['low']:.1f}, {tau['high']:.1f}]\n")
    return 0


def agreement(judged: Judged, reward: Path, images: Path) -> dict[str, Any]:
    """Tau of each score with its interval."""
    import numpy as np

    from reward_models.scorer import LearnedReward
    from toolkit.records import image_prompt

    cider = np.array(scored(judged, meteor=False, clip=None, images=None)["cider"])
    prompt = image_prompt("Describe the image.")
    learned = LearnedReward.load(reward).score(
        [prompt] * len(judged.captions), [(images / name,) for name in judged.images], judged.captions
    )
    columns = {"cider": cider, "learned": learned, "composite": _standard(cider) + _standard(learned)}
    names = sorted(set(judged.images))
    places = {name: [i for i, image in enumerate(judged.images) if image == name] for name in names}
    rng = np.random.default_rng(0)
    draws = [
        [p for k in rng.integers(len(names), size=len(names)) for p in places[names[k]]]
        for _ in range(_RESAMPLES)
    ]
    taus = {}
    for name, column in columns.items():
        resampled = [_tau(column, judged, draw) for draw in draws]
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        taus[name] = {"tau": _tau(column, judged, range(len(column))), "low": float(low), "high": float(high)}
    return {"tau": taus, "captions": len(judged.captions), "photographs": len(names)}


def _tau(column: Any, judged: Judged, places: Sequence[int]) -> float:
    return correlation([float(column[i]) for i in places], [judged.judgements[i] for i in places], "c")


def _standard(values: Any) -> Any:
    return (values - values.mean()) / (values.std() or 1.0)


def _selected(judged: Judged, names: set[str]) -> Judged:
    kept = [i for i, image in enumerate(judged.images) if image in names]
    return Judged(**{f.name: [getattr(judged, f.name)[i] for i in kept] for f in fields(Judged)})


if __name__ == "__main__":
    raise SystemExit(main())

"""Sampling several completions a prompt, with its prefill shared and without: CPU seconds of both, in turns.

    python benchmarks/shared_prefill.py [--pairs N] [--json]     (about 60 s on one core)

Random models of a million parameters of three families, eight samples of twelve tokens for eight prompts, picture
features computed beforehand. The prompts are the default one ("Describe the image.") and one of 200 words more. The
same seeds are drawn from on both sides, each pair gives a ratio, and the median counts: ``shared_over_plain`` for each
family and length. ``differing`` is how many of all ``completions`` differ: the logits of both sides are apart by
rounding, and a draw may fall on the border of two tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from ppo_setup import FAMILIES, load_policy, make_rows, save_base

from toolkit.cli.guard import libraries_on_stderr
from toolkit.data.images import load_image
from toolkit.models.encoding import EncodedPrompt, encode_prompt
from toolkit.models.generation import generate
from toolkit.models.loading import LoadedVlm
from toolkit.models.vision_features import with_vision_features
from toolkit.records import image_prompt

PROMPTS, SAMPLES, MAX_NEW_TOKENS = 8, 8, 12
WORDS = {"short": 0, "long": 200}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7, help="timed generations of each side")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with libraries_on_stderr(), tempfile.TemporaryDirectory() as name:
        for family in FAMILIES:
            vlm = load_policy(save_base(Path(name) / family, family), bits=None, rank=16)
            result[family] = {
                length: race(vlm, prompts_of(vlm, words), arguments.pairs) for length, words in WORDS.items()
            }
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for family, lengths in result.items():
        for length, row in lengths.items():
            values = "  ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            )
            sys.stdout.write(f"{family:12}{length:7}{values}\n")
    return 0


def prompts_of(vlm: LoadedVlm, words: int) -> list[EncodedPrompt]:
    """Prompts with a picture each and ``words`` more words than the default one."""
    rows = make_rows(PROMPTS, size=48)
    text = "Describe the image." + " red" * words
    prompts = [encode_prompt(vlm, image_prompt(text), [load_image(row.images[0])]) for row in rows]
    return with_vision_features(vlm, prompts)


def race(vlm: LoadedVlm, prompts: list[EncodedPrompt], pairs: int) -> dict[str, Any]:
    """Median ratio of the pairs, median CPU seconds of each side, and whether they drew the same tokens."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    completions = differing = 0
    for number in range(1 + pairs):
        drawn = {}
        seeds = list(range(number * 1000, number * 1000 + len(prompts) * SAMPLES))
        for shared in (True, False) if number % 2 else (False, True):
            began = time.process_time()
            found = generate(
                vlm, prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0, num_samples=SAMPLES,
                row_seeds=seeds, share_prefill=shared,
            )  # fmt: skip
            if number:  # the first pair warms up
                seconds[shared].append(time.process_time() - began)
            drawn[shared] = [completion.token_ids.tolist() for completion in found]
        completions += len(seeds)
        differing += sum(ours != theirs for ours, theirs in zip(drawn[True], drawn[False], strict=True))
    return {
        "prompt_tokens": len(prompts[0].input_ids),
        "shared_over_plain": statistics.median(
            shared / plain for shared, plain in zip(seconds[True], seconds[False], strict=True)
        ),
        "shared_seconds": statistics.median(seconds[True]),
        "plain_seconds": statistics.median(seconds[False]),
        "completions": completions,
        "differing": differing,
    }


if __name__ == "__main__":
    raise SystemExit(main())

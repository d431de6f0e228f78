"""Several samples of a prompt that share its copy, and that do not: CPU seconds of both, in turns.

    python benchmarks/shared_prompts.py [--pairs N] [--json]     (about 100 s on one core)

Random models of a million parameters of three families, eight samples of twelve tokens for eight prompts, picture
features computed beforehand. The prompts are the default one ("Describe the image.") and one of 200 words more.
``sample`` draws the completions, ``learn`` is a forward and a backward over 64 of them. Each pair gives a ratio, and
the median counts: ``shared_over_plain`` for each part, family and length. Both sides draw from the same seeds:
``differing`` is how many of all ``completions`` differ (logits are apart by rounding, and a draw may fall on the border
of two tokens); ``gradient_difference`` is the largest difference of a gradient over the largest gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from ppo_setup import FAMILIES, load_policy, make_rows, save_base

from toolkit.cli.guard import libraries_on_stderr
from toolkit.data.images import load_image
from toolkit.models.encoding import EncodedPrompt, collate, encode_prompt
from toolkit.models.generation import generate
from toolkit.models.loading import LoadedVlm
from toolkit.models.logprobs import score_completions
from toolkit.models.packing import collate_sharing
from toolkit.models.roles import POLICY, role_parameters
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
            for length, words in WORDS.items():
                prompts = prompts_of(vlm, words)
                for part, race in (("sample", sampling), ("learn", learning)):
                    found = {
                        "prompt_tokens": len(prompts[0].input_ids),
                        **race(vlm, prompts, arguments.pairs),
                    }
                    result.setdefault(part, {}).setdefault(family, {})[length] = found
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for part, families in result.items():
        for family, lengths in families.items():
            for length, row in lengths.items():
                values = "  ".join(
                    f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in row.items()
                )
                sys.stdout.write(f"{part:8}{family:12}{length:7}{values}\n")
    return 0


def prompts_of(vlm: LoadedVlm, words: int) -> list[EncodedPrompt]:
    """Prompts with a picture each and ``words`` more words than the default one."""
    rows = make_rows(PROMPTS, size=48)
    text = "Describe the image." + " red" * words
    prompts = [encode_prompt(vlm, image_prompt(text), [load_image(row.images[0])]) for row in rows]
    return with_vision_features(vlm, prompts)


def sampling(vlm: LoadedVlm, prompts: list[EncodedPrompt], pairs: int) -> dict[str, Any]:
    """Draw ``SAMPLES`` completions a prompt; how many of both sides differ."""
    completions = differing = 0

    def draw(shared: bool, number: int) -> list[list[int]]:
        seeds = list(range(number * 1000, number * 1000 + len(prompts) * SAMPLES))
        found = generate(
            vlm, prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0, num_samples=SAMPLES, row_seeds=seeds,
            share_prefill=shared,
        )  # fmt: skip
        return [completion.token_ids.tolist() for completion in found]

    def compare(ours: list[list[int]], theirs: list[list[int]]) -> None:
        nonlocal completions, differing
        completions += len(ours)
        differing += sum(one != other for one, other in zip(ours, theirs, strict=True))

    times = in_turns(draw, compare, pairs)
    return {**times, "completions": completions, "differing": differing}


def learning(vlm: LoadedVlm, prompts: list[EncodedPrompt], pairs: int) -> dict[str, Any]:
    """A forward and a backward over ``SAMPLES`` random completions a prompt."""
    generator = torch.Generator().manual_seed(0)
    special = {*vlm.family.placeholder_ids(vlm.processor), *vlm.tokenizer.all_special_ids}
    words = torch.tensor([token for token in range(len(vlm.tokenizer)) if token not in special])
    rows = [prompt for prompt in prompts for _ in range(SAMPLES)]
    completions = [words[torch.randint(len(words), (MAX_NEW_TOKENS,), generator=generator)] for _ in rows]
    difference = 0.0

    def learn(shared: bool, number: int) -> list[torch.Tensor]:
        del number
        batch = (collate_sharing if shared else collate)(vlm, rows, completions)
        vlm.model.zero_grad(set_to_none=True)
        score_completions(vlm.model, batch).logprobs.sum().backward()  # type: ignore[no-untyped-call]
        return [
            parameter.grad
            for _, parameter in role_parameters(vlm.model, POLICY)
            if parameter.grad is not None
        ]

    def compare(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
        nonlocal difference
        largest = max(float(gradient.abs().max()) for gradient in theirs)
        apart = max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
        difference = max(difference, apart / largest)

    times = in_turns(learn, compare, pairs)
    return {**times, "gradient_difference": difference}


def in_turns(
    work: Callable[[bool, int], Any], compare: Callable[[Any, Any], None], pairs: int
) -> dict[str, float]:
    """Median ratio of the pairs and median CPU seconds of each side; what both made goes to ``compare``."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1 + pairs):
        made = {}
        for shared in (True, False) if number % 2 else (False, True):
            began = time.process_time()
            made[shared] = work(shared, number)
            if number:  # the first pair warms up
                seconds[shared].append(time.process_time() - began)
        compare(made[True], made[False])
    ratios = [shared / plain for shared, plain in zip(seconds[True], seconds[False], strict=True)]
    return {
        "shared_over_plain": statistics.median(ratios),
        "shared_seconds": statistics.median(seconds[True]),
        "plain_seconds": statistics.median(seconds[False]),
    }


if __name__ == "__main__":
    raise SystemExit(main())

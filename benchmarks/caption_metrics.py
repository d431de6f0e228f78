"""Caption metrics against pycocoevalcap, both sides in one run: speed as a reward and of a whole evaluation, memory.

    python benchmarks/caption_metrics.py                       (about 3 minutes on one core)
    VLM_RLHF_TEST_DATA=DIR python benchmarks/caption_metrics.py --json

Needs Java and the extra ``official`` for the other side. Every timed call gets captions that were not scored
before, and times are medians; the two sides take turns. With ``--json`` one JSON object: ``reward_64``,
``reward_256`` (times faster than pycocoevalcap with references tokenized beforehand and given frequencies),
``reward_64_as_example``, ``reward_256_as_example`` (… than calling it as its example does), ``cider_only_256``
(… than its scorer alone on tokenized input), ``evaluation_5000`` (tokenizing, BLEU, ROUGE-L, CIDEr-D; our side in a
fresh process), ``reward_memory_growth_mb`` (over 1,000 calls), ``bootstrap_1000_s`` (CPU seconds: CIDEr of 5,000
images, document frequencies counted anew in each of 1,000 resamples, from 100 of them; two are compared with scoring
them as files), ``train_scale_rss_mb``, ``train_scale_start_s`` (a fresh process that loads a saved table of 113,287
images with 566,435 references and scores a batch), ``train_scale_build_s``, ``train_scale_build_rss_mb``, and
``seconds`` with the medians behind the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caption_corpus import Corpus, crossed_captions, load_corpus
from official_captions import Official, official_evaluation

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too

PARTS = ("reward", "evaluation", "bootstrap", "train_scale")
REPEATS = 7


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = os.environ.get("VLM_RLHF_TEST_DATA")
    parser.add_argument(
        "--data", type=Path, default=given, help="folder of real captions (VLM_RLHF_TEST_DATA)"
    )
    parser.add_argument(
        "--invented", action="store_true", help="invented captions, even where there are real ones"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="a part of the measurements")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    if arguments.invented:
        arguments.data = None
    parts = arguments.only or PARTS
    found: dict[str, Any] = {"seconds": {}}
    corpus = load_corpus(arguments.data)
    found["corpus"] = corpus.name
    if "reward" in parts:
        measure_rewards(corpus, found)
        found |= child(arguments.data, "memory")
    if "evaluation" in parts:
        measure_evaluation(corpus, arguments.data, found)
    if "bootstrap" in parts:
        found |= child(arguments.data, "bootstrap")
    if "train_scale" in parts:
        measure_train_scale(arguments.data, found)
    sys.stdout.write(json.dumps(found) + "\n" if arguments.json else table(found))
    return 0


def table(found: dict[str, Any]) -> str:
    """The measurements as lines of text."""
    lines = [f"captions: {found['corpus']}"]
    for name, value in found.items():
        if isinstance(value, float | int):
            unit = " s" if name.endswith("_s") else " MB" if name.endswith("_mb") else " x"
            sides = found["seconds"].get(name)
            times = f"   ours {sides[0] * 1e3:.2f} ms, pycocoevalcap {sides[1] * 1e3:.1f} ms" if sides else ""
            lines.append(f"{name:28}{value:10.1f}{unit}{times}")
    return "\n".join(lines) + "\n"


def measure_rewards(corpus: Corpus, found: dict[str, Any]) -> None:
    """Ratios of a reward call with 64 and 256 captions."""
    from toolkit.metrics import CiderD, DocumentFrequencies

    theirs = Official(corpus)
    scorer = CiderD(corpus.references, DocumentFrequencies.from_references(corpus.references))
    batches = Batches(corpus)
    for size in (64, 256):
        # A warm-up for both sides, and the two agree.
        ids, captions = batches.take(size)
        gap = abs(scorer.score(ids, captions) - theirs.reward(ids, captions)).max()
        if gap > 1e-9:
            raise SystemExit(f"the two sides disagree by {gap}")
        compare(found, f"reward_{size}", batches, size, scorer.score, theirs.reward)
        compare(found, f"reward_{size}_as_example", batches, size, scorer.score, theirs.example)
    tokenized = Batches(corpus, theirs.tokenize_all)
    compare(found, "cider_only_256", tokenized, 256, scorer.score, theirs.cider)


def compare(
    found: dict[str, Any],
    name: str,
    batches: Batches,
    size: int,
    ours: Callable[[list[Any], list[str]], object],
    theirs: Callable[[list[Any], list[str]], object],
) -> None:
    """Median times of both sides, taking turns, each call with a batch of its own."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for side, call in zip(times, (ours, theirs), strict=True):
            ids, captions = batches.take(size)
            began_s = time.perf_counter()
            call(ids, captions)
            side.append(time.perf_counter() - began_s)
    medians = [statistics.median(side) for side in times]
    found[name] = medians[1] / medians[0]
    found["seconds"][name] = medians


class Batches:
    """Hands out every caption once: those of the systems, then crossings of references."""

    def __init__(self, corpus: Corpus, prepare: Callable[[list[str]], list[str]] | None = None) -> None:
        rows = [(image_id, text) for system in corpus.systems for image_id, text in system.items()]
        ids = list(corpus.references)
        captions = [text for texts in corpus.references.values() for text in texts]
        crossed = crossed_captions(captions, 20_000, seed=len(rows) + (prepare is not None))
        rows += [(ids[place % len(ids)], text) for place, text in enumerate(crossed)]
        texts = [text for _, text in rows]
        self._rows = list(zip([key for key, _ in rows], prepare(texts) if prepare else texts, strict=True))
        self._next = 0

    def take(self, size: int) -> tuple[list[Any], list[str]]:
        """The next ``size`` captions with their images."""
        rows = self._rows[self._next : self._next + size]
        if len(rows) < size:
            raise SystemExit("not enough captions for every call to get new ones")
        self._next += size
        return [image_id for image_id, _ in rows], [text for _, text in rows]


def measure_evaluation(corpus: Corpus, data: Path | None, found: dict[str, Any]) -> None:
    """The whole evaluation of one system; ours in fresh processes, so that nothing is remembered."""
    ours = [child(data, "evaluation", str(repeat % 2)) for repeat in range(4)]
    theirs = []
    for system in corpus.systems:
        began_s = time.perf_counter()
        scores = official_evaluation(corpus, system)
        theirs.append((time.perf_counter() - began_s, scores))
    for run, (_, scores) in zip(ours, theirs, strict=False):
        gap = max(abs(run["scores"][name] - value) for name, value in scores.items())
        if gap > 1e-9:
            raise SystemExit(f"the two sides disagree by {gap}: {run['scores']}, {scores}")
    medians = [statistics.median(run["time_s"] for run in ours), statistics.median(t for t, _ in theirs)]
    found["evaluation_5000"] = medians[1] / medians[0]
    found["seconds"]["evaluation_5000"] = medians


def measure_train_scale(data: Path | None, found: dict[str, Any]) -> None:
    """A table of COCO's training size: built in one process, started from in two others at the same time."""
    with tempfile.TemporaryDirectory(prefix="train-scale-") as folder:
        built = child(data, "build", f"{folder}/table.safetensors", f"{folder}/references.json")
        found |= built
        starts = child(data, "start", f"{folder}/table.safetensors", f"{folder}/references.json")
        found |= starts


def child(data: Path | None, *call: str) -> dict[str, Any]:
    """Run one measurement in a fresh process."""
    script = Path(__file__).with_name("caption_processes.py")
    command = [sys.executable, str(script), str(data or ""), *call]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())

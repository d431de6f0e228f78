"""Measurements of caption_metrics.py that need a process of their own: caption_processes.py DATA NAME [FILE …]."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from caption_corpus import crossed_captions, load_corpus

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too

TRAIN_IMAGES = 113_287


def child_evaluation(data: Path | None, which: str) -> dict[str, Any]:
    """Time and scores of our evaluation of one system."""
    from toolkit.metrics import score_captions

    corpus = load_corpus(data)
    began_s = time.perf_counter()
    scores = score_captions(corpus.references, corpus.systems[int(which)])
    return {"time_s": time.perf_counter() - began_s, "scores": scores.corpus}


def child_bootstrap(data: Path | None) -> dict[str, Any]:
    """Time of 1,000 resamples of CIDEr-D, document frequencies included; some are checked against scoring anew."""
    import numpy as np

    from toolkit.metrics import CaptionStatistics, score_captions

    corpus = load_corpus(data)
    references, results = corpus.references, corpus.systems[0]
    statistics = CaptionStatistics(references, results, ["cider"])
    ids, generator = list(references), np.random.default_rng(0)
    draws = [generator.integers(len(ids), size=len(ids)) for _ in range(100)]
    began_s = time.process_time()
    scores = [statistics.corpus(draw)["cider"] for draw in draws]
    seconds = (time.process_time() - began_s) * 10
    for draw, score in list(zip(draws, scores, strict=True))[:2]:
        again = {place: ids[index] for place, index in enumerate(draw)}
        own = {place: references[key] for place, key in again.items()}
        anew = score_captions(own, {place: results[key] for place, key in again.items()}, ["cider"]).corpus[
            "cider"
        ]
        if abs(anew - score) > 1e-12:
            raise SystemExit(f"a resample scores {score}, scored anew {anew}")
    return {"bootstrap_1000_s": seconds}


def child_memory(data: Path | None) -> dict[str, Any]:
    """Growth of resident memory from the 100th to the 1,000th reward call of 64 new captions."""
    from toolkit.metrics import CiderD, DocumentFrequencies

    corpus = load_corpus(data)
    scorer = CiderD(corpus.references, DocumentFrequencies.from_references(corpus.references))
    ids = list(corpus.references)
    captions = [text for texts in corpus.references.values() for text in texts]
    supply = crossed_captions(captions, 64_000, seed=5)
    sizes = []
    for call in range(1000):
        scorer.score(ids[call : call + 64], [next(supply) for _ in range(64)])
        if call in (99, 999):
            sizes.append(resident_mb())
    return {"reward_memory_growth_mb": sizes[1] - sizes[0]}


def child_build(data: Path | None, table_file: str, references_file: str) -> dict[str, Any]:
    """Build and save a table of COCO's training size."""
    from toolkit.metrics import DocumentFrequencies

    captions = [text for texts in load_corpus(data).references.values() for text in texts]
    supply = crossed_captions(captions, TRAIN_IMAGES * 5, seed=3)
    references = {image: [next(supply) for _ in range(5)] for image in range(TRAIN_IMAGES)}
    with open(references_file, "w", encoding="utf-8") as stream:
        json.dump(references, stream)
    began_s = time.perf_counter()
    made = DocumentFrequencies.from_references(references)
    made.save(table_file)
    told = {"train_scale_build_s": time.perf_counter() - began_s, "train_scale_build_rss_mb": peak_mb()}
    return told | {"train_scale_ngrams": {"distinct": int(made.counts.size)}}


def child_start(data: Path | None, table_file: str, references_file: str) -> dict[str, Any]:
    """Start from the saved table and score one batch of 256."""
    from toolkit.metrics import CiderD, DocumentFrequencies
    from toolkit.metrics.files import read_references

    references = read_references(references_file)
    own = resident_mb()
    began_s = time.perf_counter()
    scorer = CiderD(references, DocumentFrequencies.load(table_file))
    ids = list(references)[:256]
    scorer.score(ids, [references[key][0] for key in ids])
    seconds = time.perf_counter() - began_s
    for first in range(256, 256 * 40, 256):
        ids = list(references)[first : first + 256]
        scorer.score(ids, [references[key][0] for key in ids])
    told = {"train_scale_start_s": seconds, "train_scale_rss_mb": resident_mb()}
    return told | {"train_scale_private_mb": private_mb(), "train_scale_captions_alone_mb": own}


def resident_mb() -> float:
    """Resident memory of this process, pages of mapped files included."""
    return _status("VmRSS")


def private_mb() -> float:
    """Resident memory that no other process shares."""
    return _status("RssAnon")


def peak_mb() -> float:
    """The most resident memory that this process ever had."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


CHILDREN = {
    "bootstrap": child_bootstrap,
    "build": child_build,
    "evaluation": child_evaluation,
    "memory": child_memory,
    "start": child_start,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1] else None
    sys.stdout.write(json.dumps(CHILDREN[sys.argv[2]](folder, *sys.argv[3:])) + "\n")

"""How varied captions are: of one image among themselves, and of a whole system in its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError
from toolkit.metrics.cider import Cider
from toolkit.metrics.frequencies import DocumentFrequencies
from toolkit.metrics.text import check_texts
from toolkit.metrics.tokenizer import tokenize

__all__ = ["BAD_ENDINGS", "distinct_n", "score_diversity", "self_cider"]

BAD_ENDINGS = frozenset("a an at for her his in of on that the this to with".split())
"""Words that captions end with when a policy was paid for n-grams; the list that self-critical training counts by."""

Floats = npt.NDArray[np.float64]


def distinct_n(captions: Iterable[Sequence[str]], n: int) -> float:
    """Distinct n-grams of tokenized ``captions`` over all of them (Li et al., 2016), 0 to 1; 0 without any."""
    found = [tuple(words[i : i + n]) for words in captions for i in range(len(words) - n + 1)]
    return len(set(found)) / len(found) if found else 0.0


def self_cider(captions: Sequence[str], frequencies: DocumentFrequencies) -> float:
    """Self-CIDEr diversity of the captions of one image (Wang and Chan, 2019), 0 (all alike) to 1.

    The captions' pairwise CIDEr is a kernel; with singular values s of the TF-IDF vectors behind it (roots of the
    kernel's eigenvalues) the diversity is -log(max s / sum s) / log(number of captions).

    Args:
        captions: of one image, at least two.
        frequencies: weights of the n-grams, usually of the references of the whole test set, without end token.

    Raises:
        DataError: fewer than two captions, or no caption has a word that weighs anything.
    """
    return _self_cider_of_groups([captions], frequencies)[0]


def score_diversity(
    samples: Mapping[Any, Sequence[str]],
    *,
    frequencies: DocumentFrequencies | Literal["corpus"] = "corpus",
    training: Iterable[str] | None = None,
) -> dict[str, float]:
    """Diversity of what a system says.

    Args:
        samples: image id to one or several captions; a system that decodes greedily has one.
        frequencies: of self-CIDEr; ``"corpus"`` counts them in ``samples`` themselves.
        training: captions the system was trained on, for ``novel``.

    Returns:
        ``num_images``, ``num_captions``, ``vocabulary`` (different tokens), ``mean_tokens``; shares from 0 to 1:
        ``distinct_1`` and ``distinct_2`` (over all captions), ``unique`` (different captions among all),
        ``bad_endings`` (captions that end with a word of ``BAD_ENDINGS``), ``novel`` (captions that are not in
        ``training``, compared by tokens; only with ``training``); ``self_cider`` and ``image_distinct_1``,
        ``image_distinct_2`` (mean over the images with at least two captions; only where there are such images).

    Raises:
        DataError: there are no captions, or an image has none.
    """
    empty = [image_id for image_id, captions in samples.items() if not captions]
    if empty or not samples:
        problems = [f"image {image_id!r} has no caption" for image_id in empty]
        raise DataError("captions", problems or ["there are no captions"])
    check_texts("captions", ((image_id, text) for image_id, texts in samples.items() for text in texts))
    words = {image_id: [tokenize(text) for text in captions] for image_id, captions in samples.items()}
    flat = [tokens for own in words.values() for tokens in own]
    scores: dict[str, float] = {
        "num_images": len(samples),
        "num_captions": len(flat),
        "vocabulary": len({token for tokens in flat for token in tokens}),
        "mean_tokens": float(np.mean([len(tokens) for tokens in flat])),
        "distinct_1": distinct_n(flat, 1),
        "distinct_2": distinct_n(flat, 2),
        "unique": len(set(map(tuple, flat))) / len(flat),
        "bad_endings": sum(bool(tokens) and tokens[-1] in BAD_ENDINGS for tokens in flat) / len(flat),
    }
    if training is not None:
        known = {tuple(tokenize(text)) for text in training}
        scores["novel"] = sum(tuple(tokens) not in known for tokens in flat) / len(flat)
    several = {image_id: captions for image_id, captions in samples.items() if len(captions) > 1}
    if several:
        for n in (1, 2):
            scores[f"image_distinct_{n}"] = float(np.mean([distinct_n(words[key], n) for key in several]))
        table = DocumentFrequencies.from_references(samples) if frequencies == "corpus" else frequencies
        scores["self_cider"] = float(np.mean(_self_cider_of_groups(list(several.values()), table)))
    return scores


def _self_cider_of_groups(groups: Sequence[Sequence[str]], frequencies: DocumentFrequencies) -> Floats:
    """(G,) self-CIDEr of groups of captions; all pairs are scored in one call."""
    if any(len(group) < 2 for group in groups):
        raise DataError("captions", "self-CIDEr compares at least two captions of an image")
    # Every caption is an "image" whose only reference is itself.
    ids = [(group, place) for group, captions in enumerate(groups) for place in range(len(captions))]
    scorer = Cider({key: [groups[key[0]][key[1]]] for key in ids}, frequencies, frequencies.end_token)
    pairs = [
        ((group, first), second)
        for group, captions in enumerate(groups)
        for first, second in combinations(range(len(captions)), 2)
    ]
    values = scorer.score([key for key, _ in pairs], [groups[key[0]][second] for key, second in pairs])
    alone = scorer.score(ids, [groups[group][place] for group, place in ids])
    found, pair, single = [], 0, 0
    for captions in groups:
        size = len(captions)
        kernel = np.diag(alone[single : single + size])
        upper = np.triu_indices(size, 1)
        kernel[upper] = kernel[upper[1], upper[0]] = values[pair : pair + upper[0].size]
        found.append(_spread(kernel))
        pair, single = pair + upper[0].size, single + size
    return np.asarray(found)


def _spread(kernel: Floats) -> float:
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(kernel), 0.0, None))
    total = float(roots.sum())
    if total == 0:
        return 0.0  # captions without a word that weighs anything: nothing tells them apart
    return float(-np.log(roots[-1] / total) / np.log(roots.size)) + 0.0

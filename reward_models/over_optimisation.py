"""What happens to a held-out criterion as the best of more and more completions is taken by a reward model.

A reward that is right keeps raising the criterion; one that has blind spots is found out as n grows (Gao et al.
2023, "Scaling Laws for Reward Model Overoptimization"). Pure functions of numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.evaluation.intervals import bootstrap, interval, means
from toolkit.metrics.correlation import kendall_tau

__all__ = ["agreement_within_prompts", "best_of_n_curve", "expected_of_best", "kl_of_best"]

Floats = NDArray[np.float64]


def expected_of_best(proxy: Floats, criterion: Floats, n: int) -> Floats:
    """Expected criterion of the completion that the proxy likes best among ``n`` of the ``N`` sampled, (P,).

    The mean over all subsets of size n without drawing them: the i-th worst (from 0) is the best of C(i, n−1) of
    the C(N, n) subsets (Nakano et al. 2021, WebGPT, appendix I). Completions that the proxy likes equally share
    their criterion's mean.

    Args:
        proxy: scores of each prompt's completions, (P, N).
        criterion: what they are worth, (P, N).
        n: from 1 to N.

    Raises:
        ValueError: n is out of range, or the shapes differ.
    """
    if proxy.shape != criterion.shape or proxy.ndim != 2 or not 1 <= n <= proxy.shape[1]:
        raise ValueError(
            f"expected two arrays (P, N) and n of 1 to N, found {proxy.shape}, {criterion.shape}, {n}"
        )
    total = proxy.shape[1]
    weights = np.array([math.comb(rank, n - 1) / math.comb(total, n) for rank in range(total)])
    result = np.empty(len(proxy))
    for index, (scores, values) in enumerate(zip(proxy, criterion, strict=True)):
        order = np.argsort(scores, kind="stable")
        _, group, size = np.unique(scores[order], return_inverse=True, return_counts=True)
        shared = np.bincount(group, weights=values[order]) / size
        result[index] = weights @ shared[group]
    return result


def kl_of_best(n: int) -> float:
    """KL divergence of best-of-n from its policy, in nats: log n − (n − 1) / n (an upper bound; exact without ties)."""
    return math.log(n) - (n - 1) / n


def best_of_n_curve(
    proxies: Mapping[str, Floats], criterion: Floats, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The criterion of best-of-n by each proxy, n = 1, 2, 4 … N, with 95 % intervals over prompts.

    Args:
        proxies: scores (P, N) by name; the criterion itself is the bound and is added under ``best possible``.
        criterion: (P, N).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        ``{"n", "kl", "curves": {name: [{"mean", "low", "high"}]}}``, and under ``differences`` for every pair of
        proxies at the largest n the paired difference.
    """
    counts = [2**power for power in range(int(math.log2(criterion.shape[1])) + 1)]
    curves: dict[str, list[dict[str, float]]] = {}
    last: dict[str, Floats] = {}
    for name, proxy in {**proxies, "best possible": criterion}.items():
        columns = {str(n): expected_of_best(proxy, criterion, n) for n in counts}
        draws = bootstrap(means(columns), units=len(criterion), resamples=resamples, seed=seed)
        curves[name] = [interval(draws, str(n)).as_dict() for n in counts]
        last[name] = columns[str(counts[-1])]
    names = list(proxies)
    pairs = {f"{a} − {b}": last[a] - last[b] for i, b in enumerate(names) for a in names[i + 1 :]}
    found = bootstrap(means(pairs), units=len(criterion), resamples=resamples, seed=seed) if pairs else None
    differences = {name: interval(found, name).as_dict() for name in pairs} if found is not None else {}
    return {"n": counts, "kl": [kl_of_best(n) for n in counts], "curves": curves, "differences": differences}


def agreement_within_prompts(scores: Floats, other: Floats) -> dict[str, float]:
    """Mean Kendall's τ-b of two scorings (P, N) over the prompts where neither is constant, and their number."""
    taus: Sequence[float] = [
        tau for a, b in zip(scores, other, strict=True) if not math.isnan(tau := kendall_tau(a, b))
    ]
    return {"tau": float(np.mean(taus)) if taus else math.nan, "prompts": float(len(taus))}

"""How often a reward model prefers the text that people preferred, overall and by the source of the judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import RunFailed
from toolkit.records import PreferenceRow

__all__ = ["accuracy_card", "accuracy_of"]


def accuracy_of(margins: NDArray[np.float64]) -> float:
    """Share of positive margins (chosen − rejected), (P,); a tie counts half."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def accuracy_card(
    pairs: Sequence[PreferenceRow], margins: Mapping[str, Sequence[float] | NDArray[np.float64]]
) -> dict[str, Any]:
    """The ``reward_model`` entry of ``summary.json``.

    Args:
        pairs: held-out pairs, P of them.
        margins: score(chosen) − score(rejected), (P,), by the name of the accuracy they give: ``accuracy``,
            ``text_only_accuracy`` (a reward model trained on blanked pictures), ``blanked_accuracy`` (this model,
            shown blanked pictures).

    Returns:
        ``{"accuracy", "text_only_accuracy", "blanked_accuracy", "n", "by_source": {source: the same}}``; an accuracy
        without margins is None.

    Raises:
        RunFailed: a margin is not a finite number.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in margins.items()}
    for name, values in arrays.items():
        if values.shape != (len(pairs),) or not np.isfinite(values).all():
            raise RunFailed(
                f"{name}: expected {len(pairs)} finite margins, found {values.shape} with NaN or infinity"
            )
    sources = np.array([pair.source for pair in pairs])
    everything = np.ones(len(pairs), dtype=bool)
    card = _accuracies(arrays, everything)
    card["by_source"] = {str(source): _accuracies(arrays, sources == source) for source in np.unique(sources)}
    return card


def _accuracies(arrays: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]) -> dict[str, Any]:
    names = ("accuracy", "text_only_accuracy", "blanked_accuracy")
    found: dict[str, Any] = {
        name: accuracy_of(arrays[name][mask]) if name in arrays else None for name in names
    }
    return {**found, "n": int(mask.sum())}

"""The reward model's card."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import RunFailed
from toolkit.evaluation.pairs import accuracy_card, accuracy_of
from toolkit.records import PreferenceRow, image_prompt


def pairs(*sources: str) -> list[PreferenceRow]:
    return [
        PreferenceRow(
            sample_id=str(number),
            task="caption",
            prompt=image_prompt("x"),
            chosen="a",
            rejected="b",
            images=(b"",),
            source=source,
        )
        for number, source in enumerate(sources)
    ]


def test_a_tie_counts_half() -> None:
    assert accuracy_of(np.array([1.0, -1.0, 0.0, 2.0])) == 0.625


def test_accuracies_by_source() -> None:
    card = accuracy_card(
        pairs("order", "order", "slip"), {"accuracy": [1.0, -1.0, 3.0], "blanked_accuracy": [0.0, 0.0, 0.0]}
    )
    assert card["accuracy"] == pytest.approx(2 / 3)
    assert card["blanked_accuracy"] == 0.5
    assert card["text_only_accuracy"] is None
    assert card["n"] == 3
    assert card["by_source"]["order"] == {
        "accuracy": 0.5,
        "text_only_accuracy": None,
        "blanked_accuracy": 0.5,
        "n": 2,
    }


def test_failed_scores_are_not_read_as_wrong() -> None:
    with pytest.raises(RunFailed, match="finite margins"):
        accuracy_card(pairs("a"), {"accuracy": [float("nan")]})
    with pytest.raises(RunFailed, match="expected 2"):
        accuracy_card(pairs("a", "b"), {"accuracy": [1.0]})

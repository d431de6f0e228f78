"""Doubts about preference rows: each found with its rows and counts, none in clean data."""

from __future__ import annotations

import pytest

from toolkit.data.preference_checks import preference_warnings
from toolkit.records import PreferenceRow, image_prompt


def row(chosen: str, rejected: str, *, picture: str = "a", tie: bool = False) -> PreferenceRow:
    return PreferenceRow(
        sample_id="x",
        task="caption",
        prompt=image_prompt("Describe the image."),
        chosen=chosen,
        rejected=rejected,
        images=(picture.encode(),),
        tie=tie,
    )


def placed(*rows: PreferenceRow) -> list[tuple[str, PreferenceRow]]:
    return [(f"p.jsonl:{number}", row) for number, row in enumerate(rows, start=1)]


CLEAN = [row(f"cat {n}", f"dog {n} runs" if n % 2 else f"dog{n}", picture=str(n)) for n in range(60)]
CLEAN = [row(r.rejected, r.chosen, picture=str(n)) if n % 4 < 2 else r for n, r in enumerate(CLEAN)]


def test_clean_rows_raise_no_doubt() -> None:
    assert preference_warnings(placed(*CLEAN)) == []


@pytest.mark.parametrize(
    ("added", "begin", "end"),
    [
        (
            [row("x", "y"), row("x", "y"), row("x", "y")],
            "2 rows repeat an earlier row",
            ": p.jsonl:62, p.jsonl:63",
        ),
        ([row("x", "y"), row("y", "x")], "2 rows contradict another row", ": p.jsonl:61, p.jsonl:62"),
        ([row("A cat.", "a  cat")], "1 rows hold texts that differ in case", "spaces alone: p.jsonl:61"),
    ],
)
def test_doubtful_rows_are_named(added: list[PreferenceRow], begin: str, end: str) -> None:
    [found] = preference_warnings(placed(*CLEAN, *added))
    assert found.startswith(begin)
    assert found.endswith(end)


def test_the_same_texts_about_another_picture_and_ties_are_no_contradiction() -> None:
    assert (
        preference_warnings(placed(row("x", "y"), row("y", "x", picture="b"), row("y", "x", tie=True))) == []
    )


def test_many_rows_are_counted_and_five_are_named() -> None:
    [found] = preference_warnings(placed(*[row("x", "y")] * 9))
    assert found.startswith("8 rows repeat")
    assert found.endswith("p.jsonl:6 and 3 more")


def test_length_and_label_bias_are_measured() -> None:
    long = [row(f"a much longer text {n}", f"short {n}", picture=str(n)) for n in range(30)]
    [length] = preference_warnings(placed(*long))
    assert "the longer text is chosen in 100.0 % of the 30 rows" in length
    labels = [row(*(("true", "false") if n % 10 else ("false", "true")), picture=str(n)) for n in range(100)]
    balance = preference_warnings(placed(*labels))
    assert [line.split(";")[0] for line in balance] == [
        "label balance: 'false' is chosen in 10.0 % of the 100 rows that offer it",
        "label balance: 'true' is chosen in 90.0 % of the 100 rows that offer it",
    ]

"""The sources of a recipe turned into rows, with everything that is wrong reported at once.

Order is that of the sources and, within one, that of its file. ``part`` takes the images whose hash falls into
it (:func:`toolkit.data.splits.part_of`), then ``limit`` the first so many: pictures of a caption source,
questions of a VQA source, lines of a rows source. Every picture in use is opened before anything is returned
(:data:`toolkit.data.image_checks.FULL_CHECK_LIMIT`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from toolkit.config.schema import CaptionSource, DataSpec, RowsSource, Source, VqaSource
from toolkit.data.answered import read_answered
from toolkit.data.coco import CaptionItem, read_captions
from toolkit.data.files import escaped
from toolkit.data.image_checks import image_problems
from toolkit.data.images import resolve_image
from toolkit.data.preferences import pairs_of, read_ranked_rows
from toolkit.data.rows import read_prompt_rows, read_sft_rows
from toolkit.data.splits import check_leakage, clashing_ids, part_of
from toolkit.data.vqa import ImageFinder, VqaItem, most_frequent_answer, read_vqa
from toolkit.errors import DataError
from toolkit.records import PreferenceRow, PromptRow, RankedRow, SftRow, image_prompt

__all__ = ["load_parts", "load_preference_rows", "load_prompt_rows", "load_ranked_rows", "load_sft_rows"]

Row = TypeVar("Row", PromptRow, SftRow, PreferenceRow, RankedRow)
Item = TypeVar("Item", CaptionItem, VqaItem)
_LOG = logging.getLogger("vlm_rlhf.data")
_REMEDY = "correct the entries named, or remove them; `vlm-rlhf data check` checks a file by itself"
Placed = list[tuple[str, Row]]
"""Rows with the place (file and line or id) they come from."""


def load_sft_rows(sources: Sequence[Source], root: Path, *, full_check: bool | None = None) -> list[SftRow]:
    """One row for each (image, reference caption), question with its most frequent answer, or row.

    Args:
        sources: what to read, in this order.
        root: the folder their paths are relative to.
        full_check: decode every picture (default: up to ``FULL_CHECK_LIMIT`` of them).

    Raises:
        DataError: every problem of every source.
    """
    return _good(root, *_gathered(sources, root, _sft_rows, full_check))


def load_prompt_rows(
    sources: Sequence[Source], root: Path, *, full_check: bool | None = None
) -> list[PromptRow]:
    """One row for each image with all its references, question with all its answers, or prompt row.

    Args:
        sources: what to read, in this order.
        root: the folder their paths are relative to.
        full_check: decode every picture (default: up to ``FULL_CHECK_LIMIT`` of them).

    Raises:
        DataError: every problem of every source.
    """
    rows, problems = _gathered(sources, root, _prompt_rows, full_check)
    return _good(root, rows, [*problems, *clashing_ids(rows)])


def load_preference_rows(
    sources: Sequence[Source], root: Path, *, full_check: bool | None = None, ties: bool = False
) -> list[PreferenceRow]:
    """The pairs of ``rows`` sources; ranked lists become all of their pairs.

    Args:
        sources: what to read, in this order.
        root: the folder their paths are relative to.
        full_check: decode every picture (default: up to ``FULL_CHECK_LIMIT`` of them).
        ties: keep pairs of which neither is preferred; otherwise they are left out, and counted in the log.

    Raises:
        DataError: every problem of every source; a source of another kind, which holds no preferences; nothing
            but ties.
    """
    ranked = load_ranked_rows(sources, root, full_check=full_check)
    pairs = [pair for row in ranked for pair in pairs_of(row)]
    decided = pairs if ties else [pair for pair in pairs if not pair.tie]
    if len(decided) < len(pairs):
        _LOG.info(
            "%d of %d pairs are ties, which this stage leaves out", len(pairs) - len(decided), len(pairs)
        )
    if pairs and not decided:
        raise DataError(f"data of {escaped(root)}", f"all {len(pairs)} pairs are ties", remedy=_REMEDY)
    return decided


def load_ranked_rows(
    sources: Sequence[Source], root: Path, *, full_check: bool | None = None
) -> list[RankedRow]:
    """The preferences of ``rows`` sources as lists, best completion first; a pair is a list of two.

    Raises:
        DataError: as ``load_preference_rows``.
    """
    return _good(root, *_gathered(sources, root, _ranked_rows, full_check))


def load_parts(
    data: DataSpec, load: Callable[[Sequence[Source], Path], list[Row]]
) -> tuple[list[Row], list[Row]]:
    """The train and val rows of a recipe (val is empty when it names none), checked against each other.

    Args:
        data: the recipe's ``data``.
        load: one of the loaders of this module.

    Raises:
        DataError: the problems of both parts together, or every picture that is in both.
    """
    root = Path(data.root)
    problems: list[str] = []
    parts: dict[str, list[Row]] = {"train": [], "val": []}
    for name, sources in (("train", data.train), ("val", data.val)):
        try:
            parts[name] = load(sources, root) if sources else []
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(f"data of {escaped(root)}", problems, remedy=_REMEDY)
    check_leakage(parts)
    return parts["train"], parts["val"]


def _gathered(
    sources: Sequence[Source],
    root: Path,
    read: Callable[[Source, Path, list[str]], Placed[Row]],
    full_check: bool | None,
) -> tuple[Placed[Row], list[str]]:
    """The faultless rows of all sources, and what is wrong with the others and with any picture."""
    problems: list[str] = []
    rows: Placed[Row] = []
    for number, source in enumerate(sources, start=1):
        before = len(problems)
        try:
            placed = read(source, root, problems)
        except DataError as error:
            problems.extend(error.problems)
            continue
        if not placed and len(problems) == before:
            problems.append(_nothing(source, root))
        rows.extend(_named_apart(placed, rows, number))
    images = ((where, image) for where, row in rows for image in row.images)
    problems.extend(image_problems(images, full=full_check))
    return rows, problems


def _good(root: Path, rows: Placed[Row], problems: list[str]) -> list[Row]:
    """The rows by themselves; DataError when there is any problem."""
    if problems:
        raise DataError(f"data of {escaped(root)}", problems, remedy=_REMEDY)
    return [row for _, row in rows]


def _named_apart(placed: Placed[Row], earlier: Placed[Row], number: int) -> Placed[Row]:
    """Sample ids are unique within a file; one that an earlier source also uses gets ``@number`` appended."""
    taken = {row.sample_id for _, row in earlier}
    return [
        (where, replace(row, sample_id=f"{row.sample_id}@{number}") if row.sample_id in taken else row)
        for where, row in placed
    ]


def _nothing(source: Source, root: Path) -> str:
    if isinstance(source, RowsSource):
        return f"{escaped(root / source.file)}: no rows; expected at least one"
    name = source.captions if isinstance(source, CaptionSource) else source.questions
    part = "" if source.part == "all" else f" in the part '{source.part}'"
    return f"{escaped(root / name)}: no pictures{part}; expected at least one"


def _sft_rows(source: Source, root: Path, problems: list[str]) -> Placed[SftRow]:
    if isinstance(source, RowsSource):
        return read_sft_rows(root / source.file, problems)[: source.limit]
    rows: Placed[SftRow] = []
    for where, row in _prompt_rows(source, root, problems):
        texts = row.references or (most_frequent_answer(row.answers),)
        for number, text in enumerate(texts, start=1):
            sample_id = f"{row.sample_id}/{number}" if row.references else row.sample_id
            rows.append((where, _completed(row, sample_id, text)))
    return rows


def _completed(row: PromptRow, sample_id: str, text: str) -> SftRow:
    return SftRow(sample_id=sample_id, task=row.task, prompt=row.prompt, completion=text, images=row.images)


def _prompt_rows(source: Source, root: Path, problems: list[str]) -> Placed[PromptRow]:
    if isinstance(source, RowsSource):
        return read_prompt_rows(root / source.file, problems)[: source.limit]
    if isinstance(source, CaptionSource):
        return _caption_rows(source, root, problems)
    return _vqa_rows(source, root, problems)


def _ranked_rows(source: Source, root: Path, problems: list[str]) -> Placed[RankedRow]:
    if isinstance(source, RowsSource):
        return read_ranked_rows(root / source.file, problems)[: source.limit]
    raise DataError(
        escaped(root),
        f"a source of kind '{source.kind}' holds no preferences; expected kind 'rows' with a file of preference rows",
    )


def _caption_rows(source: CaptionSource, root: Path, problems: list[str]) -> Placed[PromptRow]:
    folder = root / source.images
    prompt = image_prompt(source.prompt)
    rows: Placed[PromptRow] = []
    for item in _selected(read_captions(root / source.captions, problems), source):
        try:
            path = resolve_image(folder, item.file_name)
        except DataError as error:
            problems.extend(f"{item.where}: {problem}" for problem in error.problems)
            continue
        row = PromptRow(
            sample_id=f"caption/{item.image_id}",
            task="caption",
            prompt=prompt,
            images=(path,),
            image_id=item.image_id,
            references=item.captions,
        )
        rows.append((item.where, row))
    return rows


def _vqa_rows(source: VqaSource, root: Path, problems: list[str]) -> Placed[PromptRow]:
    folder = root / source.images
    finder = ImageFinder(folder)
    rows: Placed[PromptRow] = []
    questions = root / source.questions
    items = (
        read_answered(questions, problems)
        if source.annotations is None
        else read_vqa(questions, root / source.annotations, problems)
    )
    scored = {} if source.rule == "official" else {"rule": source.rule}
    for item in _selected(items, source):
        try:
            path = resolve_image(folder, item.file_name or finder.find(item.image_id))
        except DataError as error:
            problems.extend(f"{item.where}: {problem}" for problem in error.problems)
            continue
        asked = item.question.capitalize() if source.capitalise else item.question
        row = PromptRow(
            sample_id=f"vqa/{item.question_id}",
            task="vqa",
            prompt=image_prompt(source.prefix + asked + source.suffix),
            images=(path,),
            image_id=item.image_id,
            answers=item.answers,
            meta={**item.meta, **scored},
        )
        rows.append((item.where, row))
    return rows


def _selected(items: list[Item], source: CaptionSource | VqaSource) -> list[Item]:
    wanted = [item for item in items if source.part in ("all", part_of(item.image_id))]
    return wanted[: source.limit]

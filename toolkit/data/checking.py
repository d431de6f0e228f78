"""What ``vlm-rlhf data check`` does: read a file as a stage would, open every picture, and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolkit.config.schema import CaptionSource, RowsSource, Source, VqaSource
from toolkit.data.files import escaped
from toolkit.data.preference_checks import preference_warnings
from toolkit.data.preferences import read_preference_rows
from toolkit.data.sources import load_preference_rows, load_prompt_rows
from toolkit.data.splits import leakage_problems, part_of
from toolkit.errors import DataError, UsageError
from toolkit.records import PreferenceRow, PromptRow

__all__ = ["CheckedFile", "Kind", "check_path"]

Kind = Literal["caption", "vqa", "preference", "prompt"]

FILE_NAMES: dict[Kind, str] = {
    "caption": "captions.json",
    "vqa": "questions.json",
    "preference": "pairs.jsonl",
    "prompt": "prompts.jsonl",
}
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file without faults: where it lies, what was counted in it, and what is doubtful.

    ``counts`` holds name and figure of each line; ``warnings`` are whole lines and no reason to stop.
    """

    path: Path
    counts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()


def check_path(
    path: Path, kind: Kind, *, images: Path | None = None, annotations: Path | None = None
) -> list[CheckedFile]:
    """Check a data file, or the files of ``kind`` in a folder (its ``train``, ``val`` and ``test`` when it has them).

    Every picture is decoded. Files of several splits are also compared with each other.

    Args:
        path: a file, or a folder written by ``vlm-rlhf data sample``.
        kind: what the file holds.
        images: folder of the pictures of a caption or VQA file; by default ``images`` beside the file, or the
            file's own folder. Rows name their pictures relative to their file.
        annotations: the annotations of a VQA questions file; by default the file of that name beside it.

    Raises:
        DataError: every problem of every file, or pictures shared between splits.
        UsageError: ``images`` or ``annotations`` given for a kind that has none.
    """
    if images is not None and kind not in ("caption", "vqa"):
        raise UsageError(
            f"--images with --kind {kind}: rows name their pictures relative to their own file",
            remedy="leave out --images and put the pictures into the file's folder",
        )
    if annotations is not None and kind != "vqa":
        raise UsageError(f"--annotations with --kind {kind}: only questions have annotations")
    if not path.exists():
        raise DataError(escaped(path), "no such file or folder", remedy="check the path")
    problems: list[str] = []
    loaded: dict[str, Sequence[PromptRow | PreferenceRow]] = {}
    checked = []
    files = _files(path, kind)
    for name, file in files:
        try:
            rows = _loaded(file, kind, images, annotations)
        except DataError as error:
            problems.extend(error.problems)
            continue
        loaded[name] = rows
        counts = tuple(_counts(rows, alone=len(files) == 1))
        checked.append(CheckedFile(file, counts, tuple(_warnings(file, kind))))
    problems.extend(leakage_problems(loaded))
    if problems:
        raise DataError(escaped(path), problems, remedy="correct the entries named, or remove them")
    return checked


def _files(path: Path, kind: Kind) -> list[tuple[str, Path]]:
    """The files to check, each under the name of its split."""
    if not path.is_dir():
        return [(path.name, path)]
    name = FILE_NAMES[kind]
    found = [(split, path / split / name) for split in _SPLITS if (path / split / name).is_file()]
    return found or [(path.name, path / name)]


def _loaded(
    file: Path, kind: Kind, images: Path | None, annotations: Path | None
) -> Sequence[PromptRow | PreferenceRow]:
    here = Path()
    if kind == "preference":
        return load_preference_rows(
            [RowsSource(kind="rows", file=str(file))], here, full_check=True, ties=True
        )
    source: Source = RowsSource(kind="rows", file=str(file))
    folder = str(images if images is not None else _images_beside(file))
    if kind == "caption":
        source = CaptionSource(kind="caption", captions=str(file), images=folder)
    elif kind == "vqa":
        beside = str(annotations if annotations is not None else _annotations_beside(file))
        source = VqaSource(kind="vqa", questions=str(file), annotations=beside, images=folder)
    return load_prompt_rows([source], here, full_check=True)


def _warnings(file: Path, kind: Kind) -> list[str]:
    return preference_warnings(read_preference_rows(file, [])) if kind == "preference" else []


def _images_beside(file: Path) -> Path:
    folder = file.parent / "images"
    return folder if folder.is_dir() else file.parent


def _annotations_beside(questions: Path) -> Path:
    """``annotations.json`` for ``questions.json``; the official pair differs by ``OpenEnded_`` as well."""
    name = questions.name.replace("OpenEnded_", "").replace("questions", "annotations")
    if name == questions.name:
        raise UsageError(
            f"{escaped(questions)}: the name holds no 'questions' to find the annotations by",
            remedy="add: --annotations FILE",
        )
    return questions.with_name(name)


def _counts(rows: Sequence[PromptRow | PreferenceRow], *, alone: bool) -> list[tuple[str, str]]:
    pictures = {image for row in rows for image in row.images}
    counts = [("rows", str(len(rows))), ("pictures", str(len(pictures)))]
    counts.append(("tasks", _listed(Counter(row.task for row in rows))))
    prompts = [row for row in rows if isinstance(row, PromptRow)]
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    counts += (_prompt_counts(prompts) if prompts else []) + (_pair_counts(pairs) if pairs else [])
    if alone and prompts:  # files of one split each are not split again
        counts.append(("parts by image id", _listed(Counter(part_of(row.image_id) for row in prompts))))
    return counts


def _prompt_counts(rows: Sequence[PromptRow]) -> list[tuple[str, str]]:
    references = [reference for row in rows for reference in row.references]
    answers = sum(len(row.answers) for row in rows)
    counts = []
    if references:
        words = sum(len(reference.split()) for reference in references) / len(references)
        captioned = sum(bool(row.references) for row in rows)
        counts.append(("captions", f"{len(references)} ({len(references) / captioned:.1f} a picture)"))
        counts.append(("words", f"{words:.1f} a caption"))
    if answers:
        types = Counter(str(row.meta["answer_type"]) for row in rows if "answer_type" in row.meta)
        counts.append(
            ("answers", f"{answers} ({answers / sum(bool(row.answers) for row in rows):.1f} a question)")
        )
        counts.extend([("answer types", _listed(types))] if types else [])
    unscored = sum(not row.references and not row.answers for row in rows)
    counts.extend([("rows without references or answers", str(unscored))] if unscored else [])
    return counts


def _pair_counts(rows: Sequence[PreferenceRow]) -> list[tuple[str, str]]:
    longer = sum(len(row.chosen.split()) > len(row.rejected.split()) for row in rows)
    chosen = sum(len(row.chosen.split()) for row in rows) / len(rows)
    rejected = sum(len(row.rejected.split()) for row in rows) / len(rows)
    counts = [
        ("sources", _listed(Counter(row.source for row in rows))),
        ("words", f"{chosen:.1f} chosen, {rejected:.1f} rejected"),
        ("chosen is longer", f"{100 * longer / len(rows):.1f} %"),
    ]
    optional = {
        "ties": sum(row.tie for row in rows),
        "rows with a margin": sum(row.margin is not None for row in rows),
        "rows with several raters": sum(row.agreement is not None for row in rows),
        "rows without a picture": sum(not row.images for row in rows),
        "rows of several pictures": sum(len(row.images) > 1 for row in rows),
    }
    licences = Counter(str(row.meta.get("licence", "not stated")) for row in rows)
    counts += [(name, str(number)) for name, number in optional.items() if number]
    return [*counts, ("licences", _listed(licences))]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{escaped(name)} {number}" for name, number in counts.most_common())

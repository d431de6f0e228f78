"""Two systems side by side: paired differences with intervals, recomputed from their official result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import DataError, UsageError
from toolkit.evaluation.groups import GroupScores, compare_answers, compare_captions, members, read_groups
from toolkit.evaluation.intervals import Interval, interval, p_value, paired_difference
from toolkit.evaluation.results import CAPTIONS_FILE, VQA_FILE, read_results, result_kind
from toolkit.evaluation.scoring import (
    CaptionResult,
    SystemScores,
    VqaResult,
    score_caption_results,
    score_vqa_results,
)
from toolkit.evaluation.split import Id

__all__ = ["Comparison", "compare", "comparison_table"]

_NOT_COMPARED = ("bleu_1", "bleu_2", "bleu_3")
_EXTRA_COLUMNS = ("reward", "gold", "mean_tokens")
_BASELINES = ("blind-constant", "blind-shuffled", "human")


@dataclass(frozen=True, slots=True)
class Comparison:
    """``a - b`` for one pair of systems: per score, both values with their intervals and the difference.

    ``p_values`` are of "no difference" by score; ``groups`` the same by subgroup, where asked for.
    """

    a: str
    b: str
    num_images: int
    num_questions: int
    scores: Mapping[str, tuple[Interval, Interval, Interval]]
    p_values: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, GroupScores] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """``{"a", "b", "num_images", "num_questions", "scores": {name: {"a", "b", "difference", "p_value"}}}``.

        With groups also ``"groups": {group: {"n", "scores"}}``.
        """
        scores = {
            name: {
                "a": a.as_dict(),
                "b": b.as_dict(),
                "difference": difference.as_dict(),
                "p_value": self.p_values[name],
            }
            for name, (a, b, difference) in self.scores.items()
        }
        counts = {"num_images": self.num_images, "num_questions": self.num_questions}
        groups = {"groups": dict(self.groups)} if self.groups else {}
        return {"a": self.a, "b": self.b, **counts, "scores": scores, **groups}


@dataclass(frozen=True, slots=True)
class _Source:
    """Result files of one system, and the references that lie beside them."""

    label: str
    files: Mapping[str, Path]
    folder: Path | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for."""

    references: Path | None
    resamples: int
    group_by: str | None
    groups: Path | None


def compare(
    a: Path,
    b: Path,
    *,
    references: Path | None = None,
    resamples: int = 1000,
    group_by: str | None = None,
    groups: Path | None = None,
) -> list[Comparison]:
    """Compare result files, system folders, evaluation folders or runs that hold one.

    Two evaluation folders are compared system by system where both hold the name; where each holds one system,
    those two.

    Args:
        a: first side; differences are ``a - b``.
        b: second side.
        references: COCO captions or VQA annotations for bare result files. Folders bring their own.
        resamples: number of bootstrap resamples.
        group_by: a column of the annotations, of the references' rows or of ``groups``: the same by its values.
        groups: rows with ``image_id`` (captions) or ``question_id`` (answers) and the column.

    Raises:
        UsageError: bare result files without references, or of different kinds; an unknown column.
        DataError: something is missing, or ids do not match the references.
    """
    pairs = _paired(_sources(a), _sources(b), a, b)
    plan = _Plan(references, resamples, group_by, groups)
    return [_compare(first, second, plan) for first, second in pairs]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as plain text."""
    lines: list[str] = []
    for found in comparisons:
        told = found.as_dict()
        lines += [
            f"a  {found.a}",
            f"b  {found.b}",
            f"   {found.num_images} images, {found.num_questions} questions",
        ]
        lines += [f"{'':14}{'a':>10}{'b':>10}{'a - b':>10}   {'95 % interval':22}{'p':>8}"]
        lines += _rows(told["scores"])
        for group, part in found.groups.items():
            lines += [f"{group} ({part['n']})", *_rows(part["scores"])]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _rows(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, row in scores.items():
        difference = Interval(**row["difference"])
        span = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
        verdict = "" if difference.excludes_zero else "  within chance"
        values = f"{row['a']['mean']:>10.4f}{row['b']['mean']:>10.4f}{difference.mean:>+10.4f}"
        lines.append(f"{name:14}{values}   {span:22}{row['p_value']:>8.4f}{verdict}")
    return lines


def _sources(path: Path) -> dict[str, _Source]:
    """Systems at ``path`` by name; a single unnamed one under the empty name."""
    if path.is_file():
        return {"": _Source(str(path), {result_kind(path): path}, None)}
    for folder in (path, path / "eval"):
        if (folder / "systems").is_dir():
            systems = sorted(entry for entry in (folder / "systems").iterdir() if _result_files(entry))
            return {entry.name: _Source(str(entry), _result_files(entry), folder) for entry in systems}
    if files := _result_files(path):
        home = path.parent.parent if path.parent.name == "systems" else path
        return {"": _Source(str(path), files, home)}
    raise DataError(
        str(path),
        "no results here: expected a result file, a folder with captions_results.json or vqa_results.json, or a run "
        "with an evaluation",
        remedy="make them with: vlm-rlhf eval CHECKPOINT --benchmark NAME --data PATH --out DIR",
    )


def _result_files(folder: Path) -> dict[str, Path]:
    names = {"caption": CAPTIONS_FILE, "vqa": VQA_FILE}
    return {kind: folder / name for kind, name in names.items() if (folder / name).is_file()}


def _paired(
    a: Mapping[str, _Source], b: Mapping[str, _Source], first: Path, second: Path
) -> list[tuple[_Source, _Source]]:
    of_a, of_b = ([name for name in side if name not in _BASELINES] for side in (a, b))
    common = [name for name in of_a if name in of_b]
    if not common and len(of_a) == 1 and len(of_b) == 1:  # two checkpoints, each in a folder of its own
        return [(a[of_a[0]], b[of_b[0]])]
    if not common:
        raise UsageError(
            f"{first} holds {', '.join(map(repr, a))} and {second} holds {', '.join(map(repr, b))}: nothing to pair",
            remedy="name one system on each side, e.g. EVAL/systems/sft EVAL/systems/ppo",
        )
    return [(a[name], b[name]) for name in common]


def _compare(a: _Source, b: _Source, plan: _Plan) -> Comparison:
    kinds = [kind for kind in ("caption", "vqa") if kind in a.files and kind in b.files]
    if not kinds:
        raise UsageError(f"{a.label} holds {_kinds(a)} and {b.label} holds {_kinds(b)}: nothing to compare")
    first, second = (_scores(side, kinds, plan.references, plan.resamples) for side in (a, b))
    if first.num_images != second.num_images or first.num_questions != second.num_questions:
        raise DataError(f"{a.label} and {b.label}", "they were scored on different images or questions")
    scores: dict[str, tuple[Interval, Interval, Interval]] = {}
    p_values: dict[str, float] = {}
    for kind in kinds:
        left, right = first.draws[kind], second.draws[kind]
        for name in left.point:
            if name in right.point and name not in _NOT_COMPARED:
                both = interval(left, name), interval(right, name)
                scores[name] = (*both, paired_difference(left, right, name))
                p_values[name] = p_value(left, right, name)
    groups = _grouped(a, first, second, plan) if plan.group_by is not None else {}
    return Comparison(a.label, b.label, first.num_images, first.num_questions, scores, p_values, groups)


def _grouped(source: _Source, a: SystemScores, b: SystemScores, plan: _Plan) -> dict[str, GroupScores]:
    """Scores by the values of the column: of images where captions have it, else of questions."""
    column = plan.group_by or ""
    beside = (
        []
        if source.folder is None
        else [source.folder / "annotations.json", source.folder / "references.json"]
    )
    each = [path.with_name("per_image.jsonl") for kind, path in source.files.items() if kind == "caption"]
    files = [path for path in (plan.groups, plan.references, *beside, *each) if path is not None]
    if a.vqa is not None and b.vqa is not None and (a.captions is None or b.captions is None):
        return _grouped_answers(source, a.vqa, b.vqa, plan, files)
    if a.captions is None or b.captions is None:
        return {}
    ids, names = (
        a.captions.image_ids,
        [name for name in a.draws["caption"].point if name not in _NOT_COMPARED],
    )
    try:
        values = read_groups(files, "image_id", column)
        places = members(values, ids, column)
    except UsageError:
        if a.vqa is None or b.vqa is None:
            raise
        return _grouped_answers(source, a.vqa, b.vqa, plan, files)
    both = [name for name in names if name in b.draws["caption"].point]
    return {
        group: compare_captions(a.captions, b.captions, own, both, resamples=plan.resamples)
        for group, own in places.items()
    }


def _grouped_answers(
    source: _Source, a: VqaResult, b: VqaResult, plan: _Plan, files: Sequence[Path]
) -> dict[str, GroupScores]:
    column = plan.group_by or ""
    annotations = plan.references or _beside(source, "annotations.json")
    images = read_groups([annotations], "question_id", "image_id")
    places = members(read_groups(files, "question_id", column), a.question_ids, column)
    pictures = [images[identity] for identity in a.question_ids]
    return {
        group: compare_answers(a, b, pictures, own, resamples=plan.resamples) for group, own in places.items()
    }


def _kinds(source: _Source) -> str:
    return " and ".join({"caption": "captions", "vqa": "answers"}[kind] for kind in source.files)


def _scores(source: _Source, kinds: Sequence[str], references: Path | None, resamples: int) -> SystemScores:
    captions = _captions(source, references) if "caption" in kinds else None
    vqa = _answers(source, references) if "vqa" in kinds else None
    return SystemScores.resampled(captions, vqa, resamples=resamples)


def _captions(source: _Source, references: Path | None) -> CaptionResult:
    from toolkit.metrics.files import align_ids, read_references

    found = read_results(source.files["caption"], "caption")
    by_id = align_ids(read_references(references or _beside(source, "references.json")), found)
    texts = read_results(source.files["caption"], "caption", expected=list(by_id))
    return score_caption_results(by_id, texts).with_columns(**_extra_columns(source, list(by_id)))


def _extra_columns(source: _Source, ids: Sequence[Id]) -> dict[str, list[float]]:
    """Reward, gold and lengths that the evaluation stored per image, where it did so for every image."""
    from toolkit.metrics.files import read_json

    path = source.files["caption"].with_name("per_image.jsonl")
    if not path.exists():
        return {}
    rows = {row["image_id"]: row for row in read_json(path)}
    if any(identity not in rows for identity in ids):
        return {}
    names = [name for name in _EXTRA_COLUMNS if all(rows[identity].get(name) is not None for identity in ids)]
    return {name: [rows[identity][name] for identity in ids] for name in names}


def _answers(source: _Source, references: Path | None) -> VqaResult:
    from toolkit.metrics.files import read_rows

    path = references or _beside(source, "annotations.json")
    rows = read_rows(path, "annotations", ("question_id", "image_id", "answers"))
    texts = read_results(source.files["vqa"], "vqa", expected=[row["question_id"] for row in rows])
    return score_vqa_results(rows, texts)


def _beside(source: _Source, name: str) -> Path:
    path = None if source.folder is None else source.folder / name
    if path is None or not path.exists():
        raise UsageError(
            f"{source.label} brings no {name}",
            remedy="give --references FILE: COCO captions for caption results, VQA annotations for answers",
        )
    return path

"""Benchmarks: small YAML files that say where a data set keeps its files, how it is prompted and decoded.

A file of your own with the same keys serves as well: ``vlm-rlhf eval CHECKPOINT --benchmark my.yaml --data PATH``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolkit.config.blocks import AnswerRule
from toolkit.config.schema import CaptionSource, DecodingSpec, Source, Strict, VqaSource
from toolkit.errors import DataError, RecipeError, UsageError

__all__ = ["Benchmark", "BenchmarkFiles", "benchmark_names", "load_benchmark", "locate"]


class CaptionFiles(Strict):
    """Caption part of a benchmark: candidates for its files, ``{split}`` filled in, first that exists wins."""

    prompt: str
    files: list[str]
    images: list[str]


class VqaFiles(Strict):
    """Question part of a benchmark, as ``VqaSource``; without ``annotations`` the answers are with the questions."""

    prefix: str = ""
    suffix: str = ""
    capitalise: bool = False
    rule: AnswerRule = "official"
    questions: list[str]
    annotations: list[str] = []
    images: list[str]


class Preset(Strict):
    """What another tool does differently: values that replace the benchmark's own."""

    caption_prompt: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    capitalise: bool | None = None
    rule: AnswerRule | None = None
    max_new_tokens: int | None = None


class Benchmark(Strict):
    """One benchmark file. ``split`` is taken when none is named; ``presets`` are other tools' prompts and rules."""

    title: str
    split: str
    decoding: DecodingSpec
    captions: CaptionFiles | None = None
    vqa: VqaFiles | None = None
    scenes: list[str] = []
    presets: dict[str, Preset] = {}

    def with_preset(self, name: str) -> Benchmark:
        """The benchmark as the tool of that name runs it.

        Raises:
            UsageError: the benchmark has no such preset.
        """
        if name not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise UsageError(f"--preset {name}: {self.title} has no such preset; there are {known}")
        chosen = self.presets[name].model_dump(exclude_none=True)
        decoding = {key: chosen.pop(key) for key in ("max_new_tokens",) if key in chosen}
        prompt = {"prompt": chosen.pop("caption_prompt")} if "caption_prompt" in chosen else {}
        return self.model_copy(
            update={
                "decoding": self.decoding.model_copy(update=decoding),
                "captions": self.captions and self.captions.model_copy(update=prompt),
                "vqa": self.vqa and self.vqa.model_copy(update=chosen),
            }
        )


class BenchmarkFiles(Strict):
    """A benchmark found on disk: sources relative to ``root``, and the scenes file if there is one."""

    root: str
    sources: list[Source]
    scenes: str | None


def benchmark_names() -> list[str]:
    """Names of the benchmarks that come along."""
    return sorted(
        Path(entry.name).stem for entry in resources.files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or of a YAML file at that path.

    Raises:
        UsageError: there is none of that name.
        RecipeError: the file is not as a benchmark must be.
    """
    from ruamel.yaml import YAML, YAMLError

    if name in benchmark_names():
        text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name, benchmark_names(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        known = ", ".join(benchmark_names())
        raise UsageError(f"there is no benchmark '{name}'{hint}", remedy=f"one of {known}, or a YAML file")
    try:
        return Benchmark.model_validate(YAML(typ="safe", pure=True).load(text))
    except YAMLError as error:
        raise RecipeError(name, f"not YAML: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise RecipeError(name, problems, remedy="see toolkit/evaluation/benchmarks/coco.yaml") from error


def locate(benchmark: Benchmark, data: Path, *, split: str | None, limit: int | None) -> BenchmarkFiles:
    """Find the files of a benchmark.

    Args:
        benchmark: what to look for.
        data: the folder of the data set, or its caption file.
        split: fills ``{split}``; the benchmark's own split by default.
        limit: first so many images (captions) and questions.

    Raises:
        DataError: a file or the pictures are not there; names every place looked at.
    """
    if not data.exists():
        raise DataError(
            str(data), "no such file or folder", remedy="give the folder of the data set to --data"
        )
    chosen = split or benchmark.split
    root = data if data.is_dir() else data.parent
    finder = _Finder(root, chosen)
    sources: list[Any] = []
    if benchmark.captions is not None:
        wanted = benchmark.captions
        file = data.name if data.is_file() else finder.file(wanted.files)
        near = [data.name.split(".")[0].removesuffix("_captions")] if data.is_file() else []
        images = finder.folder([*near, *wanted.images])
        sources.append(
            CaptionSource(kind="caption", captions=file, images=images, prompt=wanted.prompt, limit=limit)
        )
    if benchmark.vqa is not None and (data.is_dir() or benchmark.captions is None):
        asked = benchmark.vqa
        itself = data.is_file() and not asked.annotations
        sources.append(
            VqaSource(
                kind="vqa",
                questions=data.name if itself else finder.file(asked.questions),
                annotations=finder.file(asked.annotations) if asked.annotations else None,
                images=finder.folder(asked.images),
                prefix=asked.prefix,
                suffix=asked.suffix,
                capitalise=asked.capitalise,
                rule=asked.rule,
                limit=limit,
            )
        )
    scenes = next((name for name in finder.filled(benchmark.scenes) if (root / name).is_file()), None)
    finder.raise_problems(data)
    return BenchmarkFiles(root=str(root), sources=sources, scenes=scenes)


class _Finder:
    """First candidate that exists; what is missing is gathered."""

    def __init__(self, root: Path, split: str) -> None:
        self.root = root
        self.split = split
        self.problems: list[str] = []

    def filled(self, candidates: Sequence[str]) -> list[str]:
        return [candidate.replace("{split}", self.split) for candidate in candidates]

    def file(self, candidates: Sequence[str]) -> str:
        names = [name for filled in self.filled(candidates) for name in (filled, f"{filled}.gz")]
        found = next((name for name in names if (self.root / name).is_file()), None)
        if found is None:
            self.problems.append(f"none of these files: {', '.join(self.filled(candidates))}")
        return found or names[0]

    def folder(self, candidates: Sequence[str]) -> str:
        names = self.filled(candidates)
        found = next((name for name in names if _has_files(self.root / name)), None)
        if found is None:
            self.problems.append(f"no pictures in any of: {', '.join(names)}")
        return found or names[0]

    def raise_problems(self, data: Path) -> None:
        if self.problems:
            remedy = "give the data set's folder to --data and its split to --split"
            raise DataError(str(data), self.problems, remedy=remedy)


def _has_files(folder: Path) -> bool:
    suffixes = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
    return folder.is_dir() and any(path.suffix.lower() in suffixes for path in folder.iterdir())

"""Whether what a recipe reads is there, and if not, which command makes it."""

from __future__ import annotations

import shlex
from pathlib import Path

from toolkit.bundled import bundled_path
from toolkit.config import schema
from toolkit.config.catalogue import configs_folder
from toolkit.config.document import read_tree
from toolkit.config.findings import Findings

__all__ = ["check_inputs", "maker_of"]

_MODEL_FILES = ("config.json", "adapter_config.json")
_REWARD_FILE = "reward_config.json"


def check_inputs(recipe: schema.Recipe, findings: Findings) -> None:
    """Data files, image folders, models, reward models and run directories that a recipe names."""
    data = getattr(recipe, "data", None)
    if isinstance(data, schema.DataSpec):
        if _check_root(data.root, findings):
            _check_sources("data.train", data.root, data.train, findings)
            _check_sources("data.val", data.root, data.val, findings)
    elif isinstance(data, schema.TestDataSpec) and _check_root(data.root, findings):
        _check_sources("data.test", data.root, data.test, findings)
    model = getattr(recipe, "model", None)
    if isinstance(model, schema.ModelSpec):
        _check_model("model.id", model.id, findings)
    if isinstance(recipe, schema.PretrainRecipe):
        _check_file("tokenizer_texts", recipe.tokenizer_texts, recipe.data.root, findings)
    elif isinstance(recipe, schema.JudgingRecipe):
        _check_file("judged", recipe.judged, recipe.data.root, findings)
    elif isinstance(recipe, schema.PreferencesRecipe):
        _check_preferences(recipe, findings)
    elif isinstance(recipe, schema.RlRecipe):
        for index, term in enumerate(recipe.rewards):
            _check_term(f"rewards.{index}", term, findings)
    elif isinstance(recipe, schema.EvalRecipe):
        _check_evaluation(recipe, findings)
    elif isinstance(recipe, schema.ReportRecipe):
        for index, run in enumerate(recipe.runs):
            _check_run(f"runs.{index}", run, findings)
        _check_run("evaluation", recipe.evaluation, findings)


def maker_of(folder: Path, findings: Findings) -> str:
    """The command that writes a missing folder, as far as the recipes at hand tell."""
    wanted = folder.parent if folder.name == "final" else folder
    places = [findings.path.parent] if findings.path is not None else []
    for place in dict.fromkeys([*places, configs_folder()]):
        for path in sorted(place.rglob("*.yaml") if place == configs_folder() else place.glob("*.yaml")):
            output = read_tree(path, []).child("run")
            written = output.child("output_dir") if output is not None else None
            if written is not None and Path(str(written.value)) == wanted:
                return f"run: vlm-rlhf run {_shown(path)}"
    if wanted.name == "base":  # no stage writes it: the chains put a copy of the bundled model there
        source = shlex.quote(str(bundled_path("tiny-vlm")))
        target = shlex.quote(str(folder))
        return f"copy the model that comes along: mkdir -p {target} && cp -r {source}/. {target}"
    return f"run the stage that writes it: vlm-rlhf run RECIPE run.output_dir={wanted}"


def _shown(path: Path) -> str:
    root = configs_folder()
    return path.relative_to(root).with_suffix("").as_posix() if path.is_relative_to(root) else str(path)


def _check_root(root: str, findings: Findings) -> bool:
    folder = Path(root)
    if not findings.exists(folder):
        findings.add(
            "data.root",
            f"expected a folder, found nothing at '{root}'; set data.root=DIR, or make a sample: "
            f"vlm-rlhf data sample --out {root}",
        )
        return False
    if folder.exists() and not folder.is_dir():
        findings.add("data.root", f"expected a folder, '{root}' is a file")
        return False
    return True


def _check_sources(dotted: str, root: str, sources: list[schema.Source], findings: Findings) -> None:
    for index, source in enumerate(sources):
        key = f"{dotted}.{index}"
        if isinstance(source, schema.RowsSource):
            _check_file(f"{key}.file", source.file, root, findings, only_below_root=True)
            continue
        if isinstance(source, schema.CaptionSource):
            names = {"captions": source.captions}
        else:
            names = {"questions": source.questions}
            names |= {"annotations": source.annotations} if source.annotations is not None else {}
        for field, name in names.items():
            _check_file(f"{key}.{field}", name, root, findings, only_below_root=True)
        images = Path(root) / source.images
        if not findings.exists(images):
            findings.add(f"{key}.images", f"expected a folder of images, found nothing at '{images}'")
        elif images.exists() and not images.is_dir():
            findings.add(f"{key}.images", f"expected a folder of images, '{images}' is a file")


def _check_file(
    dotted: str, name: str, root: str, findings: Findings, *, only_below_root: bool = False
) -> None:
    below = Path(root) / name
    candidates = [below] if only_below_root else [below, Path(name)]
    if any(path.is_file() for path in candidates):
        return
    if below.is_dir():
        findings.add(dotted, f"expected a file, '{below}' is a folder")
    elif not any(findings.exists(path) for path in candidates):
        made = below.parent.name == "final"
        hint = f"; first {maker_of(below.parent, findings)}" if made else ""
        places = f"'{below}'" if only_below_root else f"'{below}' or '{name}'"
        findings.add(dotted, f"expected a file, found nothing at {places}{hint}")


def _check_model(dotted: str, name: str, findings: Findings) -> None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in _MODEL_FILES) and not _promised(folder, findings):
            inner = folder / "final"
            hint = f"; did you mean '{inner}'?" if inner.is_dir() else ""
            findings.add(
                dotted, f"expected a model or adapter, '{name}' has no {' or '.join(_MODEL_FILES)}{hint}"
            )
    elif folder.exists():
        findings.add(dotted, f"expected a model directory or hub id, '{name}' is a file")
    elif _looks_like_path(name) and not findings.exists(folder):
        findings.add(
            dotted,
            f"expected a model directory, found nothing at '{name}'; first {maker_of(folder, findings)}",
        )


def _check_reward_model(dotted: str, name: str, findings: Findings) -> None:
    folder = Path(name)
    if not findings.exists(folder):
        hint = f"first {maker_of(folder, findings)}"
        findings.add(dotted, f"expected a reward model, found nothing at '{name}'; {hint}")
    elif folder.exists() and not (folder / _REWARD_FILE).is_file() and not _promised(folder, findings):
        inner = folder / "final"
        hint = f"; did you mean '{inner}'?" if (inner / _REWARD_FILE).is_file() else ""
        findings.add(dotted, f"expected a reward model, '{name}' has no {_REWARD_FILE}{hint}")


def _check_run(dotted: str, name: str, findings: Findings) -> None:
    if not findings.exists(Path(name)):
        hint = f"first {maker_of(Path(name), findings)}"
        findings.add(dotted, f"expected a run directory, found nothing at '{name}'; {hint}")


def _check_term(key: str, term: schema.RewardTerm, findings: Findings) -> None:
    """The models of a reward term: a reward model, or the CLIP of clipscore."""
    if term.model is not None:
        _check_reward_model(f"{key}.model", term.model, findings)
    clip = term.options.get("model")
    if term.term == "clipscore" and isinstance(clip, str):
        _check_model(f"{key}.options.model", clip, findings)


def _check_preferences(recipe: schema.PreferencesRecipe, findings: Findings) -> None:
    for index, name in enumerate(recipe.scenes):
        _check_file(f"scenes.{index}", name, recipe.data.root, findings)
    for index, term in enumerate(recipe.rank_by):
        _check_term(f"rank_by.{index}", term, findings)
    if recipe.raters not in ("simulated", "metric") and not findings.exists(Path(recipe.raters)):
        findings.add(
            "raters",
            f"expected 'simulated', 'metric' or a file of judgements, found nothing at '{recipe.raters}'",
        )


def _check_evaluation(recipe: schema.EvalRecipe, findings: Findings) -> None:
    root = recipe.data.root
    for index, system in enumerate(recipe.systems):
        _check_model(f"systems.{index}.model.id", system.model.id, findings)
    for field in ("train_references", "scenes"):
        name = getattr(recipe, field)
        if name is not None:
            _check_file(field, name, root, findings)
    for index, name in enumerate(recipe.preference_pairs):
        _check_file(f"preference_pairs.{index}", name, root, findings)
    for field in ("reward_model", "text_only_reward_model"):
        name = getattr(recipe, field)
        if name is not None:
            _check_reward_model(field, name, findings)


def _promised(folder: Path, findings: Findings) -> bool:
    """Below a folder that an earlier stage is going to (re)write."""
    return any(folder.absolute().is_relative_to(made.absolute()) for made in findings.produced)


def _looks_like_path(name: str) -> bool:
    """Hub ids are ``name`` or ``owner/name``; a first part that is a folder here makes it a path as well."""
    parts = Path(name).parts
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or len(parts) > 2
    return is_path or (len(parts) == 2 and Path(parts[0]).is_dir())

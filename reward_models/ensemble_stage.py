"""Training of ensembles: members one after another, each on its own resample, and what their spread says."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from reward_models.config import CONFIG_FILE, read_config
from reward_models.data import RewardData, load_reward_data
from reward_models.ensemble import EnsembleReward
from reward_models.evaluation import EVALUATION_FILE, evaluate_pairs, score_rows
from reward_models.measures import accuracy
from reward_models.stage import train_reward
from toolkit.config.schema import EnsembleSpec, RewardRecipe
from toolkit.data.images import load_image
from toolkit.errors import RecipeError
from toolkit.records import ImageSource, PreferenceRow
from toolkit.runs.atomic import atomic_directory, atomic_write_text
from toolkit.runs.directory import RunDirectory
from toolkit.runs.processes import is_main_process

__all__ = ["altered", "bootstrap", "spread", "train_ensemble"]

_LOG = logging.getLogger("vlm_rlhf.reward")
_SPREAD_ROWS = 200


def train_ensemble(
    recipe: RewardRecipe, directory: RunDirectory, resume: bool, *, data: RewardData | None = None
) -> None:
    """Train the members in ``member-<k>/`` and write ``final/`` with all of them, and the evaluation.

    Member k has the seed ``run.seed + k`` and, with ``ensemble.bootstrap``, rows drawn with replacement. On
    ``resume`` finished members stay, and the unfinished one goes on from its checkpoint.

    Raises:
        RecipeError: under DeepSpeed or FSDP, which set up a process for one model only.
        As ``train_reward``.
    """
    spec = recipe.ensemble
    if spec is None:
        train_reward(recipe, directory, resume, data=data)
        return
    _refuse_split_weights()
    rows, val_rows = data or load_reward_data(recipe)
    for index in range(spec.members):
        seed = recipe.run.seed + index
        member = RunDirectory(directory.path / f"member-{index}")
        member.stop = directory.stop
        member.path.mkdir(exist_ok=True)
        if resume and (member.final / CONFIG_FILE).is_file():
            continue
        _LOG.info("member %d of %d", index + 1, spec.members)
        run = recipe.run.model_copy(update={"seed": seed, "output_dir": str(member.path)})
        part: Any = bootstrap(rows, seed) if spec.bootstrap else rows
        train_reward(
            recipe.model_copy(update={"ensemble": None, "run": run}), member, resume, data=(part, val_rows)
        )
        directory.metrics.write(index + 1, member_accuracy=read_config(member.final).held_out_accuracy)
    _finish(spec, directory, val_rows)


def _refuse_split_weights() -> None:
    """``vlm-rlhf check`` refuses its launchers; this also meets an accelerate file of the user's own."""
    for name in ("DEEPSPEED", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1"):
            raise RecipeError(
                "recipe",
                f"ensemble: is trained without {name}, which sets up a process for one model only; the members "
                "follow one another in a process",
                remedy="use --launch ddp, or none",
            )


def bootstrap(rows: Sequence[Any], seed: int) -> list[Any]:
    """As many rows drawn with replacement (Efron 1979)."""
    chosen = np.random.default_rng(seed).integers(len(rows), size=len(rows))
    return [rows[int(index)] for index in chosen]


def _finish(spec: EnsembleSpec, directory: RunDirectory, val_rows: Sequence[PreferenceRow]) -> None:
    folders = [directory.path / f"member-{index}" / "final" for index in range(spec.members)]
    config = read_config(folders[0]).model_copy(
        update={"members": spec.members, "std_penalty": spec.std_penalty, "score_mean": 0.0, "score_std": 1.0}
    )
    if is_main_process():
        with atomic_directory(directory.final) as folder:
            for index, member in enumerate(folders):
                shutil.copytree(member, folder / f"member-{index}")
            (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if val_rows:
            _measure(directory, val_rows)


def _measure(directory: RunDirectory, rows: Sequence[PreferenceRow]) -> None:
    """Write the evaluation of the finished ensemble, and its figures into ``final/reward_config.json``."""
    reward = EnsembleReward.load(directory.final)
    chosen, rejected = score_rows(reward, rows)
    both = np.concatenate([chosen, rejected])
    config = reward.config.model_copy(
        update={
            "score_mean": float(both.mean()),
            "score_std": float(both.std()),
            "held_out_accuracy": accuracy(chosen, rejected),
        }
    )
    report = evaluate_pairs(reward, rows)
    members = [read_config(directory.path / f"member-{k}" / "final") for k in range(config.members)]
    values = {
        **report.as_json(),
        "ensemble": {
            "members": [member.held_out_accuracy for member in members],
            "std_penalty": config.std_penalty,
            "std": spread(reward, rows[:_SPREAD_ROWS]),
        },
    }
    atomic_write_text(directory.final / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    atomic_write_text(directory.path / EVALUATION_FILE, json.dumps(values, indent=2) + "\n")
    _LOG.info("%s", report.summary())


def spread(reward: EnsembleReward, rows: Sequence[PreferenceRow]) -> dict[str, float]:
    """Mean standard deviation of the members' scores, in and out of their training's distribution.

    Returns:
        ``own`` pictures, their ``negative`` (colours turned round), and ``noise`` of the same size, each for
        the chosen texts of ``rows``.
    """
    pictures: dict[str, list[tuple[ImageSource, ...]]] = {
        "own": [row.images for row in rows],
        "negative": [tuple(altered(image, noise=False) for image in row.images) for row in rows],
        "noise": [tuple(altered(image, noise=True) for image in row.images) for row in rows],
    }
    prompts, texts = [row.prompt for row in rows], [row.chosen for row in rows]
    return {
        name: float(reward.member_scores(prompts, images, texts).std(axis=0).mean())
        for name, images in pictures.items()
    }


def altered(source: ImageSource, *, noise: bool) -> bytes:
    """The picture's negative, or noise of its size, as a PNG file."""
    pixels: Any = np.asarray(load_image(source))
    rng = np.random.default_rng(pixels.size)
    changed = rng.integers(256, size=pixels.shape, dtype=np.uint8) if noise else 255 - pixels
    file = BytesIO()
    Image.fromarray(changed).save(file, "PNG")
    return file.getvalue()

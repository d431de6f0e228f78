"""Recipe of a chain of stages."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from toolkit.config.blocks import Count, RunSpec, Strict

__all__ = ["Launcher", "PipelineRecipe", "PipelineStage"]

Launcher = Literal["none", "ddp", "zero1", "zero2", "zero2-offload", "zero3", "zero3-offload", "fsdp"]


class PipelineStage(Strict):
    """One link of a chain: the recipe file (relative to the pipeline's) and values to override.

    ``after`` names the stages it reads from (the one above when left out); ``launch`` and ``processes`` are those of
    ``vlm-rlhf run``.
    """

    name: str
    recipe: str
    overrides: dict[str, Any] = {}
    after: list[str] | None = None
    launch: Launcher = "none"
    processes: Count | None = None


class PipelineRecipe(Strict):
    """A chain of stages by directory: ``{out}`` in overrides is the chain's output directory.

    ``prepare`` writes the tiny VLM that comes along to ``{out}/base/final`` (``base``), and with it the sample data
    to ``{out}/data`` (``scenes``). ``data`` names values for overrides: ``{data.root}`` stands for ``data.root``.
    ``jobs`` stages run side by side, each in a process of its own with its share of the cores.
    """

    stage: Literal["pipeline"]
    prepare: Literal["scenes", "base", "none"] = "none"
    data: dict[str, str] = {}
    rows: dict[Literal["train", "val", "test"], Count] = {}
    stages: list[PipelineStage] = Field(min_length=1)
    jobs: Count = 1
    run: RunSpec

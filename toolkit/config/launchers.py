"""Names of the launchers, and which stage can run under which."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from toolkit.config.document import read_tree
from toolkit.config.pipeline_blocks import Launcher

__all__ = ["LAUNCHERS", "RL_WITHOUT_FSDP", "accelerate_type", "launch_problem"]

LAUNCHERS: tuple[str, ...] = get_args(Launcher)
RL_WITHOUT_FSDP = (
    "an rl recipe does not run under FSDP: it samples and saves from whole weights, which are gathered under "
    "DeepSpeed alone; expected ddp or one of the zero launchers"
)


def accelerate_type(launch: str) -> str:
    """``distributed_type`` of a launcher, in accelerate's words; of a ``FILE.yaml`` what stands in it, or ''."""
    if launch in LAUNCHERS:
        return {"none": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP"}.get(launch, "DEEPSPEED")
    path = Path(launch)
    root = read_tree(path, []) if path.is_file() else None
    found = root.child("distributed_type") if root is not None else None
    return str(found.value) if found is not None else ""


def launch_problem(stage: str, launch: str, processes: int | None) -> tuple[str, str] | None:
    """What is wrong with running a stage under a launcher: the problem and its remedy; ``None`` if nothing is."""
    if processes is not None and processes < 1:
        return f"--processes {processes}: expected at least 1", "leave it out, or name a number"
    if launch == "none" and processes not in (None, 1):
        return (
            f"--processes {processes} needs a launcher",
            f"add --launch ddp, or another of {', '.join(LAUNCHERS[1:])}",
        )
    if stage in ("pipeline", "report") and launch != "none":
        return f"--launch {launch}: a {stage} recipe runs in one process", "give --launch to a stage's recipe"
    if stage == "eval" and (launch.startswith("zero") or launch == "fsdp"):
        return f"--launch {launch}: an eval recipe shares batches, never weights", "use --launch ddp, or none"
    if stage == "rl" and accelerate_type(launch) == "FSDP":
        return f"--launch {launch}: {RL_WITHOUT_FSDP}", "use --launch zero3 to split the weights, or ddp"
    return None

"""Names of the launchers, and which stage can run under which."""

from __future__ import annotations

from typing import get_args

from toolkit.config.pipeline_blocks import Launcher

__all__ = ["LAUNCHERS", "launch_problem"]

LAUNCHERS: tuple[str, ...] = get_args(Launcher)


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
    return None

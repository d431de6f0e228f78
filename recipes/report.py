"""One HTML page of a chain: curves, table with intervals, samples with their pictures.

vlm-rlhf run recipes/configs/scenes/report.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.stage import stage_main
from toolkit.config.schema import ReportRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: ReportRecipe, directory: RunDirectory, resume: bool) -> None:
    """Write ``report.html``."""
    from toolkit.evaluation.report import report_stage

    report_stage(recipe, directory.path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("report", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Second part of pretraining: judge at a completion's end token whether it fits its picture.

vlm-rlhf run recipes/configs/scenes/pretrain_judging.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.cli.stage import stage_main
from toolkit.config.schema import JudgingRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: JudgingRecipe, directory: RunDirectory, resume: bool) -> None:
    """Train; ``final/`` holds the model and its processor."""
    from toolkit.data.sources import load_parts, load_sft_rows

    rows, _ = load_parts(recipe.data, load_sft_rows)
    from toolkit.models.loading import load_vlm
    from toolkit.training.judging import read_judged, train_judging, with_plain_texts

    pictures = read_judged(Path(recipe.data.root) / recipe.judged)
    train_judging(
        load_vlm(recipe.model, trainable=True),
        with_plain_texts(pictures, rows, number=recipe.plain_texts),
        directory=directory,
        run=recipe.run,
        trainer_options=recipe.trainer,
        resume=resume,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("judging", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())

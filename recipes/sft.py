"""Supervised fine-tuning on captions and answers (TRL), usually QLoRA on a 4-bit base.

vlm-rlhf run recipes/configs/scenes/sft.yaml model.id=DIR data.root=DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.stage import stage_main
from toolkit.config.schema import SftRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: SftRecipe, directory: RunDirectory, resume: bool) -> None:
    """Train; ``final/`` holds the adapter (or the model) and its processor."""
    from toolkit.data.sources import load_parts, load_sft_rows

    rows, val_rows = load_parts(recipe.data, load_sft_rows)
    from toolkit.models.loading import load_vlm
    from toolkit.training.sft import train_sft

    vlm = load_vlm(recipe.model, trainable=True)
    train_sft(
        vlm.model,
        vlm.processor,
        rows,
        val_rows,
        directory=directory,
        run=recipe.run,
        trainer_options=recipe.trainer,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        resume=resume,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("sft", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())

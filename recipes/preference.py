"""Direct preference optimisation on preference pairs (TRL).

vlm-rlhf run recipes/configs/scenes/dpo.yaml model.id=out/sft/final data.root=DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.stage import stage_main
from toolkit.config.schema import PreferenceRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: PreferenceRecipe, directory: RunDirectory, resume: bool) -> None:
    """Train; the reference is a frozen copy of the adapter the run starts from."""
    from toolkit.data.sources import load_parts, load_preference_rows

    rows, val_rows = load_parts(recipe.data, load_preference_rows)
    from toolkit.models.loading import load_vlm
    from toolkit.training.dpo import train_dpo

    vlm = load_vlm(recipe.model, trainable=True)
    train_dpo(
        vlm.model,
        vlm.processor,
        rows,
        val_rows,
        directory=directory,
        run=recipe.run,
        trainer_options=recipe.trainer,
        guards=recipe.guards,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        resume=resume,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("preference", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Pretraining: a tiny vision-language model from scratch, so that the chain has a base without a download.

python data/make_pretraining_data.py --out out/pretraining
vlm-rlhf run recipes/configs/scenes/pretrain.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.cli.stage import stage_main
from toolkit.config.schema import PretrainRecipe
from toolkit.runs.directory import RunDirectory


def run(recipe: PretrainRecipe, directory: RunDirectory, resume: bool) -> None:
    """Build the model, train its tower on patches, then all weights; ``final/`` holds model and processor."""
    from toolkit.data.sources import load_parts, load_sft_rows

    rows, val_rows = load_parts(recipe.data, load_sft_rows)
    from toolkit.models.families.llava import build_tiny_llava
    from toolkit.training.sft import train_sft
    from toolkit.training.tower import train_tower

    texts = (Path(recipe.data.root) / recipe.tokenizer_texts).read_text(encoding="utf-8").splitlines()
    model, processor = build_tiny_llava(recipe.architecture, texts=texts, seed=recipe.run.seed)
    if recipe.tower is not None:
        train_tower(
            model,
            processor,
            recipe.tower,
            root=Path(recipe.data.root),
            directory=directory,
            seed=recipe.run.seed,
        )
    train_sft(
        model,
        processor,
        rows,
        val_rows,
        directory=directory,
        run=recipe.run,
        trainer_options=recipe.trainer,
        resume=resume,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line and return its exit code."""
    return stage_main("pretrain", run, argv)


if __name__ == "__main__":
    raise SystemExit(main())

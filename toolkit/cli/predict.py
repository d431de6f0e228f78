"""``vlm-rlhf predict``: what a checkpoint says about an image, decoded greedily."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define ``predict CHECKPOINT --image FILE --prompt TEXT [--max-new-tokens N] [--four-bit] [--json]``."""
    parser = subparsers.add_parser(
        "predict",
        help="what a checkpoint says about an image",
        description="Decode a completion greedily for every image given.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="model directory, adapter directory or hub id"
    )
    parser.add_argument("--image", metavar="FILE", action="append", required=True, help="may be repeated")
    parser.add_argument("--prompt", metavar="TEXT", default="Describe the image.", help="what is asked")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="length limit (64)")
    parser.add_argument("--four-bit", action="store_true", help="hold the language model in 4 bits (NF4)")
    parser.add_argument("--json", action="store_true", help="one JSON object: text, tokens, whether it ended")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> int:
    from toolkit.cli.guard import libraries_on_stderr
    from toolkit.config.schema import DecodingSpec, ModelSpec, QuantizationSpec
    from toolkit.data.images import check_image
    from toolkit.errors import DataError, UsageError
    from toolkit.evaluation.report_text import visible
    from toolkit.models.sources import find_source
    from toolkit.records import PromptRow, image_prompt

    if arguments.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens: expected at least 1, found {arguments.max_new_tokens}")
    paths = [Path(name) for name in arguments.image]
    problems = [f"{path}: {problem}" for path in paths if (problem := check_image(path)) is not None]
    if problems:
        raise DataError("--image", problems, remedy="give an image file that opens")
    find_source(arguments.checkpoint)  # told before torch is imported
    prompt = image_prompt(arguments.prompt)
    rows = [
        PromptRow(sample_id=str(number), task="caption", prompt=prompt, images=(path,), image_id=number)
        for number, path in enumerate(paths)
    ]
    model = ModelSpec(
        id=arguments.checkpoint, quantization=QuantizationSpec() if arguments.four_bit else None
    )
    decoding = DecodingSpec(max_new_tokens=arguments.max_new_tokens, batch_size=8)
    with libraries_on_stderr():
        from toolkit.evaluation.predict import predict_rows
        from toolkit.models.loading import load_vlm

        vlm = load_vlm(model, trainable=False)
        predictions = predict_rows(vlm, rows, decoding=decoding, label="decode")
    if arguments.json:
        told = [
            {"image": str(path), "text": p.text, "num_tokens": p.num_tokens, "ended": p.ended}
            for path, p in zip(paths, predictions, strict=True)
        ]
        sys.stdout.write(json.dumps({"predictions": told}, ensure_ascii=False) + "\n")
        return 0
    for path, prediction in zip(paths, predictions, strict=True):
        name = f"{path}\t" if len(paths) > 1 else ""
        sys.stdout.write(f"{name}{visible(prediction.text)}\n")
    return 0

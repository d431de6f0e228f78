"""What TRL trains on is what we score: the same ids for the same rows."""

from __future__ import annotations

import pytest

from toolkit.models.encoding import collate, encode_completion, encode_prompt
from toolkit.records import image_prompt

from .conftest import picture


@pytest.mark.parametrize("text", ["a red circle", "blue", "Yes, a large one."])
def test_ids_and_masks_equal_those_of_the_sft_collator(vlm, text):
    sft = pytest.importorskip("trl.trainer.sft_trainer")
    collator = sft.DataCollatorForVisionLanguageModeling(processor=vlm.processor, completion_only_loss=True)
    row = {
        "prompt": image_prompt("Describe the image."),
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        "images": [picture(3)],
    }
    theirs = collator([row])
    prompt = encode_prompt(vlm, image_prompt("Describe the image."), [picture(3)])
    ours = collate(vlm, [prompt], [encode_completion(vlm, text)])
    length = ours.inputs["input_ids"].shape[1]
    assert theirs["input_ids"][0, :length].tolist() == ours.inputs["input_ids"][0].tolist()
    assert (theirs["labels"][0, :length] != -100).tolist() == ours.completion_mask[0].tolist()
    assert (theirs["pixel_values"] == ours.inputs["pixel_values"]).all()

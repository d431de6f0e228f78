"""Qwen-VL models: patches of all images in one matrix. An image-only processor, and a tiny model for tests."""

from __future__ import annotations

from typing import Any

from transformers import ProcessorMixin

__all__ = ["ImageOnlyQwenProcessor"]


class ImageOnlyQwenProcessor(ProcessorMixin):
    """Qwen2-VL's processor without its video part, which cannot be built where torchvision is missing.

    It writes ``<|image_pad|>`` once for each merged patch and returns ``mm_token_type_ids``, as the full one does.
    """

    return_mm_token_type_ids = True

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kwargs: Any
    ):
        del kwargs  # settings of the video part, when the files were written by the full processor
        self.image_token = getattr(tokenizer, "image_token", "<|image_pad|>")
        self.video_token = getattr(tokenizer, "video_token", "<|video_pad|>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholder, once for each feature of the image (patches after merging)."""
        del kwargs
        cells = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (cells // self.image_processor.merge_size**2)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs."""
        return [*super().model_input_names, "mm_token_type_ids"]

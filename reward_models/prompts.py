"""Prompts of reward models as tensors: encoded once a picture, kept while there is room."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image
from torch import Tensor

from toolkit.data.images import load_image
from toolkit.models.encoding import EncodedPrompt, encode_completion, encode_prompt
from toolkit.models.families.features import ImageFeatures
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import inner_model, language_model_name
from toolkit.models.vision_features import with_vision_features
from toolkit.records import Conversation, ImageSource
from toolkit.rewards.base import PictureFeatures

__all__ = ["BLANK_GREY", "PromptEncoder", "blank_like"]

BLANK_GREY = (128, 128, 128)
"""Colour of the pictures that replace the real ones in a text-only baseline."""

Value = TypeVar("Value")


def blank_like(image: Image.Image) -> Image.Image:
    """A grey picture of the same size."""
    return Image.new("RGB", image.size, BLANK_GREY)


class PromptEncoder:
    """Encodes prompts with their pictures, and keeps the newest results up to a number of bytes.

    A picture goes through the processor once; where nothing of the vision tower is trained, it also goes
    through the tower once, and later forwards reuse its features (bit-equal, see
    ``toolkit.models.vision_features``). All grey pictures of one size are one picture.

    Args:
        vlm: model and processor.
        blank_images: replace every picture by a grey one of its size.
        max_bytes: room for encoded prompts and features together.
    """

    def __init__(self, vlm: LoadedVlm, *, blank_images: bool = False, max_bytes: int = 1 << 30) -> None:
        self.vlm = vlm
        self.blank_images = blank_images
        self._prompts: _Newest[EncodedPrompt] = _Newest(max_bytes // 2)
        self._features: _Newest[tuple[ImageFeatures, ...]] = _Newest(max_bytes // 2)
        self._completions: _Newest[Tensor] = _Newest(max_bytes // 16)
        self._blank_keys: dict[str, str] = {}
        self._reuses_features = not _tower_is_trained(vlm)

    def encode(
        self,
        prompts: Sequence[Conversation],
        images: Sequence[tuple[ImageSource, ...]],
        *,
        pictures: PictureFeatures | None = None,
    ) -> list[EncodedPrompt]:
        """One unpadded prompt for each conversation and its pictures.

        ``pictures`` of this very model take the place of features of its own, so that what a row scores does not
        depend on what was scored before (a tower's last bit may, on how many pictures it saw at once).

        Raises:
            DataError: a picture cannot be read, or image blocks and pictures differ in number.
        """
        keys = self.keys(images)
        encoded = [
            self._encode_one(prompt, sources, key)
            for prompt, sources, key in zip(prompts, images, keys, strict=True)
        ]
        if pictures is not None and pictures.model is self.vlm.model and not self.blank_images:
            encoded = [
                replace(prompt, features=pictures.by_images.get(sources))
                for prompt, sources in zip(encoded, images, strict=True)
            ]
        reuse = self._reuses_features and not _is_split(self.vlm)
        return self._with_features(encoded, keys) if reuse else encoded

    def completions(self, texts: Sequence[str]) -> list[Tensor]:
        """Token ids (T,) of each text, end token included."""
        return [self._completion(text) for text in texts]

    def _completion(self, text: str) -> Tensor:
        known = self._completions.get((text,))
        if known is None:
            known = encode_completion(self.vlm, text)
            self._completions.put((text,), known, _size(known) + len(text))
        return known

    def keys(self, images: Sequence[tuple[ImageSource, ...]]) -> list[tuple[str, ...]]:
        """For every row its pictures' keys: equal keys, equal tensors. Grey pictures of one size are equal.

        Raises:
            DataError: a picture that is to be replaced by a grey one cannot be read.
        """
        return [tuple(self._key(image) for image in sources) for sources in images]

    def _key(self, image: ImageSource) -> str:
        key = _image_key(image)
        if not self.blank_images:
            return key
        if key not in self._blank_keys:
            width, height = load_image(image).size
            self._blank_keys[key] = f"grey {width} x {height}"
        return self._blank_keys[key]

    def _encode_one(
        self, prompt: Conversation, sources: tuple[ImageSource, ...], key: tuple[str, ...]
    ) -> EncodedPrompt:
        whole_key = (json.dumps(list(prompt), sort_keys=True, default=str), *key)
        known = self._prompts.get(whole_key)
        if known is not None:
            return known
        pictures = [load_image(source) for source in sources]
        if self.blank_images:
            pictures = [blank_like(picture) for picture in pictures]
        encoded = encode_prompt(self.vlm, prompt, pictures)
        self._prompts.put(whole_key, encoded, _bytes_of(encoded))
        return encoded

    def _with_features(
        self, prompts: list[EncodedPrompt], keys: Sequence[tuple[str, ...]]
    ) -> list[EncodedPrompt]:
        """Add features; pictures that occur several times among ``prompts`` go through the tower once."""
        given = {key: prompt.features for key, prompt in zip(keys, prompts, strict=True)}
        found = {key: features or self._features.get(key) for key, features in given.items()}
        missing = {
            key: prompt
            for key, prompt in zip(keys, prompts, strict=True)
            if found[key] is None and prompt.image_inputs
        }
        computed = with_vision_features(self.vlm, list(missing.values()))
        for key, prompt in zip(missing, computed, strict=True):
            features = prompt.features
            if features is not None:
                found[key] = features
                self._features.put(key, features, sum(_size(feature.pooled) for feature in features))
        return [replace(prompt, features=found[key]) for prompt, key in zip(prompts, keys, strict=True)]


class _Newest(Generic[Value]):
    """A mapping that forgets what was used longest ago once its values take more than ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, ...], tuple[Value, int]] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Value | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: tuple[str, ...], value: Value, size_bytes: int) -> None:
        self._kept[key] = (value, size_bytes)
        self._bytes += size_bytes
        while self._bytes > self.max_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed


def _is_split(vlm: LoadedVlm) -> bool:
    """Whether DeepSpeed ZeRO-3 has split the weights over the processes.

    Then the tower's forward is a collective call; a process that finds its pictures in the cache would leave it
    out, and the others would wait for ever.
    """
    return any(hasattr(parameter, "ds_id") for parameter in vlm.model.parameters())


def _tower_is_trained(vlm: LoadedVlm) -> bool:
    """Whether a parameter that image features depend on takes part in training."""
    inner = inner_model(vlm.model)
    language = language_model_name(inner) + "."
    head = inner.get_output_embeddings()
    in_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    return any(
        parameter.requires_grad and not name.startswith(language) and id(parameter) not in in_head
        for name, parameter in inner.named_parameters()
    )


def _image_key(image: ImageSource) -> str:
    if isinstance(image, Path):
        stat = image.stat() if image.exists() else None
        return f"{image}:{stat.st_mtime_ns}:{stat.st_size}" if stat else str(image)
    return hashlib.sha256(image).hexdigest()


def _bytes_of(prompt: EncodedPrompt) -> int:
    tensors = (prompt.input_ids, *prompt.image_inputs.values(), *prompt.token_inputs.values())
    return sum(_size(tensor) for tensor in tensors)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

"""CLIPScore and RefCLIPScore (Hessel et al., 2021) with any CLIP model that transformers loads.

Official settings: texts begin with "A photo depicts", the cosine of picture and caption is weighted by 2.5 and never
negative. Scores of different CLIP models are not comparable; the papers' are of openai/clip-vit-base-patch32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import CheckpointError, DataError
from toolkit.records import ImageSource

if TYPE_CHECKING:
    import torch

__all__ = ["ClipScorer", "ClipScores"]

_WEIGHT = 2.5
_PREFIX = "A photo depicts "

FloatArray = NDArray[np.float64]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ClipScores:
    """Scores of N captions: ``clip`` (N,), 0 to 2.5, and ``ref_clip`` (N,), or None without references."""

    clip: FloatArray
    ref_clip: FloatArray | None


class ClipScorer:
    """A CLIP model and its processor.

    Args:
        model: directory or hub id of a CLIP model.
        device: where it runs, a torch device.
        batch_size: pictures or texts in one forward.

    Raises:
        CheckpointError: the directory does not exist, or holds no CLIP.
    """

    def __init__(self, model: str, *, device: str = "cpu", batch_size: int = 32) -> None:
        from transformers import AutoModel, AutoProcessor

        from toolkit.models.sources import find_source

        source = find_source(model)
        try:
            self._model: Any = AutoModel.from_pretrained(source.base, local_files_only=source.local)
            self._processor: Any = AutoProcessor.from_pretrained(source.base, local_files_only=source.local)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot load a CLIP model from {model}: {error}") from error
        if not hasattr(self._model, "get_text_features") or not hasattr(self._model, "get_image_features"):
            raise CheckpointError(
                f"{model} is a {type(self._model).__name__}, expected a CLIP model",
                remedy="name a model with text and image features, such as openai/clip-vit-base-patch32",
            )
        self._model.requires_grad_(False).eval().to(device)
        self._device, self._batch_size = device, batch_size

    def score(
        self,
        images: Sequence[ImageSource],
        captions: Sequence[str],
        references: Sequence[Sequence[str]] | None = None,
    ) -> ClipScores:
        """Score each caption against its picture, and with ``references`` against those as well.

        RefCLIPScore is the harmonic mean of CLIPScore and the best cosine with a reference. Texts longer than the
        model reads are cut.

        Args:
            images: (N,) pictures; the same one may come again and is encoded once.
            captions: (N,) texts.
            references: (N,) at least one reference each.

        Raises:
            DataError: the lengths differ, a caption has no reference, a picture cannot be read.
        """
        if len(images) != len(captions) or (references is not None and len(references) != len(captions)):
            raise DataError("CLIPScore", "expected a picture (and references) for each caption")
        texts = self._texts(captions)
        clip = _WEIGHT * np.maximum((texts * self._images(images)).sum(axis=1), 0.0)
        if references is None:
            return ClipScores(clip, None)
        lacking = [f"caption {place} has no reference" for place, own in enumerate(references) if not own]
        if lacking:
            raise DataError("CLIPScore", lacking)
        owner = np.repeat(np.arange(len(captions)), [len(own) for own in references])
        cosines = (self._texts([text for own in references for text in own]) * texts[owner]).sum(axis=1)
        best = np.zeros(len(captions))
        np.maximum.at(best, owner, cosines)
        total = clip + best
        return ClipScores(clip, np.divide(2 * clip * best, total, out=np.zeros_like(total), where=total > 0))

    def _texts(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) unit vectors of texts."""
        longest = getattr(self._model.config, "text_config", self._model.config).max_position_embeddings

        def features(batch: list[str]) -> torch.Tensor:
            prefixed = [_PREFIX + text for text in batch]
            inputs = self._processor.tokenizer(
                prefixed, padding=True, truncation=True, max_length=longest, return_tensors="pt"
            )
            return self._model.get_text_features(**inputs.to(self._device)).pooler_output

        distinct = list(dict.fromkeys(texts))
        return self._encoded(distinct, features)[_places(texts, distinct)]

    def _images(self, images: Sequence[ImageSource]) -> FloatArray:
        """(N, D) unit vectors of pictures."""
        from toolkit.data.images import load_image

        def features(batch: list[ImageSource]) -> torch.Tensor:
            pictures = [load_image(image) for image in batch]
            inputs = self._processor.image_processor(images=pictures, return_tensors="pt")
            return self._model.get_image_features(**inputs.to(self._device)).pooler_output

        distinct = list(dict.fromkeys(images))
        return self._encoded(distinct, features)[_places(images, distinct)]

    def _encoded(self, items: list[Any], features: Any) -> FloatArray:
        import torch

        rows = []
        with torch.inference_mode():
            for batch in _batches(items, self._batch_size):
                vectors = features(batch).double()
                rows.append((vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, 1))


def _places(items: Iterable[Any], distinct: Sequence[Any]) -> NDArray[np.int64]:
    known = {item: place for place, item in enumerate(distinct)}
    return np.asarray([known[item] for item in items], dtype=np.int64)


def _batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

"""First step of pretraining from scratch: teach the vision tower what each patch shows.

Real vision-language models start from a tower that was pretrained on its own. Learning shapes through a
language model's loss alone takes a tiny model many times longer: the loss says little about a patch until
colour and position are learnt.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from toolkit.config.schema import TowerSpec
from toolkit.data.images import load_image, resolve_image
from toolkit.errors import DataError
from toolkit.runs.directory import RunDirectory
from toolkit.runs.progress import Progress

__all__ = ["TOWER_FILE", "train_tower"]

TOWER_FILE = "tower.safetensors"
_log = logging.getLogger("vlm_rlhf.tower")


def train_tower(
    model: Any, processor: Any, spec: TowerSpec, *, root: Path, directory: RunDirectory, seed: int
) -> None:
    """Train ``model``'s vision tower to classify patches; ``tower.safetensors`` marks that it is done.

    The features classified are those the projector will read. The classifier is thrown away.

    Args:
        model: a LLaVA-like model; its tower is changed in place.
        processor: gives the pixel values.
        spec: steps and the label file: an npz with ``images`` (N,) names, ``labels`` (N, P, K) integers,
            ``classes`` (K,) their numbers of values.
        root: folder of the label file and the pictures.
        directory: the run; a finished tower in it is loaded instead.
        seed: order of the pictures and weights of the classifier.

    Raises:
        Interrupted: a signal arrived; nothing is kept of an unfinished tower, which takes minutes.
        DataError: the label file is missing or does not fit the tower's patches.
    """
    tower = model.model.vision_tower
    done = directory.path / TOWER_FILE
    if done.exists():
        tower.load_state_dict(load_file(done))
        return
    names, labels, classes = _read_labels(root / spec.labels, patches=model.config.image_seq_length)
    pixels = _pixels(processor, [load_image(resolve_image(root, name)) for name in names])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = _Classifier(model.config.vision_config.hidden_size, classes)
    _fit(tower, classifier, pixels, labels, spec, directory, seed)
    save_file(tower.state_dict(), done)


class _Classifier(nn.Module):
    """One linear classifier for each of K questions about a patch."""

    def __init__(self, width: int, classes: list[int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, number) for number in classes)

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy of features (B, P, D) to labels (B, P, K), and the share of patches all right."""
        logits = [head(self.norm(features)) for head in self.heads]
        losses = [
            nn.functional.cross_entropy(part.flatten(0, 1), labels[..., index].flatten())
            for index, part in enumerate(logits)
        ]
        right = torch.stack([part.argmax(-1) == labels[..., index] for index, part in enumerate(logits)])
        return torch.stack(losses).sum(), right.all(0)[labels[..., 0] > 0].float().mean()


def _fit(
    tower: nn.Module,
    classifier: _Classifier,
    pixels: Tensor,
    labels: Tensor,
    spec: TowerSpec,
    directory: RunDirectory,
    seed: int,
) -> None:
    parameters = [*tower.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    tower.train()
    right = 0.0
    with Progress(spec.steps, "tower") as bar:
        for step in range(spec.steps):
            warm, rest = min(1.0, (step + 1) / 100), 0.5 * (1 + math.cos(math.pi * step / spec.steps))
            optimizer.param_groups[0]["lr"] = spec.learning_rate * warm * rest
            rows = torch.randint(len(pixels), (spec.batch_size,), generator=generator)
            features = tower(pixel_values=pixels[rows], output_hidden_states=True).hidden_states[-1]
            loss, share = classifier(features, labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            right += 0.02 * (float(share) - right)
            directory.stop.raise_if_requested(
                "stopped while the tower trained; --resume starts the tower again"
            )
            bar.update(note=f"loss {float(loss.detach()):.3f}  objects' patches right {right:.3f}")
    _log.info("tower: %.3f of the patches on objects right", right)


def _pixels(processor: Any, images: list[Image.Image]) -> Tensor:
    """(N, 3, H, W); pictures of this size fit in memory by the ten thousand."""
    parts = [
        processor.image_processor(images[start : start + 512], return_tensors="pt")["pixel_values"]
        for start in range(0, len(images), 512)
    ]
    return torch.cat(parts)


def _read_labels(path: Path, *, patches: int) -> tuple[list[str], Tensor, list[int]]:
    if not path.exists():
        raise DataError(
            str(path), "no such file, expected patch labels", remedy="set tower: null to do without"
        )
    with np.load(path, allow_pickle=False) as stored:
        names, labels, classes = (stored[name] for name in ("images", "labels", "classes"))
    if labels.shape[1] != patches:
        problem = f"labels for {labels.shape[1]} patches a picture, the architecture has {patches}"
        raise DataError(str(path), problem)
    return [str(name) for name in names], torch.from_numpy(labels).long(), [int(number) for number in classes]

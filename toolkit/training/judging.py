"""Second part of pretraining: say at a completion's end token whether it fits the picture.

Right after the end token the model learns to go on with ``yes`` or ``no`` (one token of either). A reward model
reads the state of that very token, so what it needs, a comparison of the whole text with the picture, is there
before it sees its first preference; learning it from preferences takes a tiny model more of them than a quick run
can afford. Real models bring that skill along. Which of two true texts is better is not told here.

Many texts stand behind one copy of a picture's features, each hidden from the others (as in
``reward_models.packing``), which makes a text three times cheaper than in a row of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from toolkit.config.schema import RunSpec
from toolkit.data.images import load_image, resolve_image
from toolkit.errors import DataError
from toolkit.models.encoding import EncodedPrompt, VlmBatch, collate, encode_prompt
from toolkit.models.loading import LoadedVlm
from toolkit.models.structure import inner_model, language_model_name, output_head, trunk
from toolkit.models.vision_features import with_vision_features
from toolkit.records import ImageSource, SftRow
from toolkit.runs.directory import RunDirectory
from toolkit.training.arguments import trainer_arguments
from toolkit.training.running import fit
from toolkit.training.saving import save_final

__all__ = ["JUDGEMENTS", "JudgedPicture", "Text", "read_judged", "train_judging", "with_plain_texts"]

JUDGEMENTS = ("no", "yes")
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Text:
    """A completion to a prompt; ``right`` says whether it fits the picture, None is a plain text to learn."""

    prompt: str
    completion: str
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class JudgedPicture:
    """A picture with all texts that stand behind it in one sequence."""

    image: ImageSource
    texts: tuple[Text, ...]


def read_judged(path: Path) -> list[JudgedPicture]:
    """The pictures of a ``judged.jsonl``: lines ``{"image": file, "judged": [[prompt, completion, right], …]}``.

    Raises:
        DataError: the file or a picture is missing, or a line is something else; names file and line.
    """
    if not path.is_file():
        raise DataError(
            str(path), "no such file", remedy="write it with: python data/make_pretraining_data.py"
        )
    pictures = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            texts = tuple(Text(str(p), str(c), bool(right)) for p, c, right in row["judged"])
            pictures.append(JudgedPicture(resolve_image(path.parent, row["image"]), texts))
        except (ValueError, KeyError, TypeError) as error:
            problem = f"line {number}: expected an image and judged texts, found {error!r}"
            raise DataError(str(path), problem) from error
    return pictures


def with_plain_texts(
    pictures: Sequence[JudgedPicture], rows: Iterable[SftRow], *, number: int
) -> list[JudgedPicture]:
    """The pictures with ``number`` plain texts of theirs added, in turn where a picture comes again.

    They keep alive what was learnt before.
    """
    plain: dict[ImageSource, list[Text]] = {}
    for row in rows:
        plain.setdefault(row.images[0], []).append(Text(_words_of(row), row.completion))
    visits: dict[ImageSource, int] = {}
    result = []
    for picture in pictures:
        texts = plain.get(picture.image, [])
        first = visits.get(picture.image, 0)
        visits[picture.image] = first + number
        chosen = [texts[(first + offset) % len(texts)] for offset in range(min(number, len(texts)))]
        result.append(JudgedPicture(picture.image, (*picture.texts, *chosen)))
    return result


def train_judging(
    vlm: LoadedVlm,
    pictures: Sequence[JudgedPicture],
    *,
    directory: RunDirectory,
    run: RunSpec,
    trainer_options: Mapping[str, Any],
    resume: bool = False,
) -> None:
    """Train the language model and its output head on ``pictures``; ``directory.final`` holds the model.

    Tower and projector stay as they are. The loss is the cross-entropy of the judgement at the end tokens,
    plus that of the plain texts' tokens.

    Raises:
        RecipeError: ``trainer_options`` is refused.
        RunFailed: the loss became infinite or NaN.
        Interrupted: a signal ended the run; a checkpoint was written.
    """
    _train_language_model_only(vlm)
    arguments = trainer_arguments(
        TrainingArguments, directory=directory.path, run=run, options=trainer_options
    )
    trainer = _JudgingTrainer(
        model=vlm.model,
        args=arguments,
        train_dataset=list(pictures),  # type: ignore[arg-type]
        data_collator=JudgedCollator(vlm),  # type: ignore[arg-type]
    )
    fit(trainer, directory=directory, run=run, resume=resume, label="judging")
    save_final(trainer, vlm.processor, directory.final)


@dataclass(frozen=True)
class JudgedBatch:
    """Sequences of a picture and its texts, and what each position should predict.

    Attributes:
        sequences: B sequences.
        targets: (B, L) token that the position should continue with, -100 where nothing is asked.
        is_judgement: (B, L) where the target is a judgement.
    """

    sequences: VlmBatch
    targets: Tensor
    is_judgement: Tensor


class JudgedCollator:
    """Packs the texts of each picture behind its image tokens."""

    def __init__(self, vlm: LoadedVlm) -> None:
        self.vlm = vlm
        words = [vlm.tokenizer.encode(word, add_special_tokens=False) for word in JUDGEMENTS]
        # The first tokens in which the words differ: a small tokenizer begins both with a space.
        self.judgements = next([no, yes] for no, yes in zip(*words, strict=False) if no != yes)
        self._prompt_ids = lru_cache(maxsize=100_000)(self._encode_prompt)
        self._seen: dict[ImageSource, EncodedPrompt] = {}

    def __call__(self, pictures: Sequence[JudgedPicture]) -> dict[str, JudgedBatch]:
        """``{"batch": JudgedBatch}`` on the model's device."""
        prefixes = self._prefixes([picture.image for picture in pictures])
        coded = [[self._coded(text) for text in picture.texts] for picture in pictures]
        tails = [torch.tensor([token for ids, _, _ in texts for token in ids]) for texts in coded]
        batch = collate(self.vlm, prefixes, tails, padding_side="right")
        shape = batch.completion_mask.shape
        segment = torch.full(shape, -1)
        position = torch.zeros(shape, dtype=torch.long)
        targets = torch.full(shape, _IGNORED)
        judged = torch.zeros(shape, dtype=torch.bool)
        for row, (prefix, texts) in enumerate(zip(prefixes, coded, strict=True)):
            start = len(prefix.input_ids)
            segment[row, :start], position[row, :start] = 0, torch.arange(start)
            place = start
            for number, (ids, wanted, is_judged) in enumerate(texts, start=1):
                here = slice(place, place + len(ids))
                segment[row, here], position[row, here] = number, start + torch.arange(len(ids))
                targets[row, here] = torch.tensor(wanted)
                judged[row, place + len(ids) - 1] = is_judged
                place += len(ids)
        device = self.vlm.device
        dtype = inner_model(self.vlm.model).dtype
        inputs = {
            **batch.inputs,
            "position_ids": position.to(device),
            "attention_mask": _mask(segment, dtype).to(device),
        }
        sequences = VlmBatch(inputs, batch.completion_mask, batch.features)
        return {"batch": JudgedBatch(sequences, targets.to(device), judged.to(device))}

    def _prefixes(self, images: Sequence[ImageSource]) -> list[EncodedPrompt]:
        """Each picture's tokens and features; kept, because nothing that they depend on is trained."""
        new = [image for image in dict.fromkeys(images) if image not in self._seen]
        encoded = with_vision_features(self.vlm, [self._prefix(image) for image in new])
        self._seen.update(zip(new, encoded, strict=True))
        return [self._seen[image] for image in images]

    def _prefix(self, image: ImageSource) -> EncodedPrompt:
        """A prompt cut behind its last image token: what the texts of a picture share."""
        prompt = [{"role": "user", "content": [{"type": "image"}]}]
        encoded = encode_prompt(self.vlm, prompt, [load_image(image)])
        last = int((encoded.input_ids == self.vlm.family.image_token_id).nonzero().max())
        return EncodedPrompt(encoded.input_ids[: last + 1], encoded.image_inputs)

    def _coded(self, text: Text) -> tuple[list[int], list[int], bool]:
        """Token ids behind the image, what each should continue with, and whether the last is a judgement."""
        tokenizer = self.vlm.tokenizer
        before = self._prompt_ids(text.prompt)
        answer = [*tokenizer.encode(text.completion, add_special_tokens=False), tokenizer.eos_token_id]
        if text.right is None:
            wanted = [_IGNORED] * (len(before) - 1) + answer + [_IGNORED]
        else:
            wanted = [_IGNORED] * (len(before) + len(answer) - 1) + [self.judgements[text.right]]
        return [*before, *answer], wanted, text.right is not None

    def _encode_prompt(self, prompt: str) -> tuple[int, ...]:
        message = {"role": "user", "content": [{"type": "text", "text": prompt}]}
        written = self.vlm.processor.apply_chat_template([message], add_generation_prompt=True)
        return tuple(self.vlm.tokenizer.encode(written, add_special_tokens=False))


class _JudgingTrainer(Trainer):
    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, JudgedBatch],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean cross-entropy of the judgements plus that of the plain texts' tokens."""
        batch = inputs["batch"]
        states = trunk(model)(**batch.sequences.model_inputs(), use_cache=False, return_dict=True)
        asked = batch.targets != _IGNORED
        logits = output_head(model)(states.last_hidden_state[asked])
        losses = nn.functional.cross_entropy(logits.float(), batch.targets[asked], reduction="none")
        judged = batch.is_judgement[asked]
        parts = [losses[members].mean() for members in (judged, ~judged) if members.any()]
        return torch.stack(parts).sum()


def _mask(segment: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, L): a text sees the picture (segment 0) and itself, causally; padding (-1) sees itself alone."""
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = segment.unsqueeze(2) == segment.unsqueeze(1)
    real = (segment >= 0).unsqueeze(2)
    seen = (same | (segment == 0).unsqueeze(1)) & causal & real | torch.eye(length, dtype=torch.bool)
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, lowest).unsqueeze(1)


def _train_language_model_only(vlm: LoadedVlm) -> None:
    inner = inner_model(vlm.model)
    language = language_model_name(inner) + "."
    inner.requires_grad_(False)
    for name, parameter in inner.named_parameters():
        if name.startswith(language):
            parameter.requires_grad_(True)
    output_head(inner).requires_grad_(True)


def _words_of(row: SftRow) -> str:
    """The text of a row's only user message."""
    content = row.prompt[0]["content"]
    return "".join(block.get("text", "") for block in content) if isinstance(content, list) else str(content)

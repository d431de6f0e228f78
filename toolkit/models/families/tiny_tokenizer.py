"""A small byte-level BPE tokenizer, trained on the spot, for models built from scratch.

Every byte has a token, so any text can be written; the merges that are left over go to whole words. Words
carry their leading blank, the first word of a text included, so that a word has one token wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from toolkit.errors import RecipeError

__all__ = ["ASSISTANT_MARK", "BOS", "EOS", "PAD", "train_tokenizer"]

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
ASSISTANT_MARK = "\n"
_BYTES = 256


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocabulary: int,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
    eos: str = EOS,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most ``vocabulary`` tokens on ``texts``.

    The specials ``<pad> <s>`` and ``eos`` have the ids 0, 1, 2, followed by ``special_tokens``. The newline that
    marks the assistant's turn is a token of its own that never merges with its neighbours: a prompt's ids are
    therefore always a prefix of the ids of prompt and completion.

    Raises:
        RecipeError: ``vocabulary`` leaves no room for the 256 bytes and the special tokens.
    """
    specials = [PAD, BOS, eos, *special_tokens]
    smallest = _BYTES + len(specials) + 1
    if vocabulary < smallest:
        raise RecipeError(
            "architecture",
            f"vocabulary: found {vocabulary}, expected at least {smallest} (bytes and special tokens)",
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,  # the assistant mark comes on top
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    backend.add_tokens([AddedToken(ASSISTANT_MARK, normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=eos,
        extra_special_tokens=list(special_tokens),
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )

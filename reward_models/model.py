"""A vision-language model with a scalar head: one score for a prompt with its pictures and a completion."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from toolkit.models.encoding import VlmBatch
from toolkit.models.heads import ScalarHead, pool_last
from toolkit.models.loading import LoadedVlm
from toolkit.models.roles import role
from toolkit.models.structure import trunk

__all__ = ["VlmRewardModel"]


class VlmRewardModel(nn.Module):
    """The trunk of a vision-language model and a float32 head on the state of the last attended token.

    That token is the end of the completion, found by the attention mask: neither the padding side nor a pad
    id that equals the end id matters. Works with full weights, LoRA and LoRA on a quantised base.

    Args:
        vlm: model and processor; its language output head is not used.
        head: from hidden states to scores.
        adapter: name of the adapter to score with, on a base that several roles share; None scores with
            what is active (a standalone model).
    """

    _keys_to_ignore_on_save = None  # read by transformers' Trainer when it resumes from trained tensors alone

    def __init__(self, vlm: LoadedVlm, head: ScalarHead, *, adapter: str | None = None) -> None:
        super().__init__()
        self.vlm = vlm
        self.model = vlm.model
        self.head = head
        self.adapter = adapter

    @classmethod
    def new(cls, vlm: LoadedVlm) -> VlmRewardModel:
        """A reward model with an untrained head; its scores are exactly 0 until the first step."""
        return cls(vlm, ScalarHead(vlm.hidden_size).to(vlm.device))

    def forward(self, batch: VlmBatch, ends: Tensor | None = None) -> Tensor:
        """Scores in float32 of the prompts and completions in ``batch``, padded on either side.

        Args:
            batch: B sequences.
            ends: (B, K) positions to score, for sequences that hold several completions; the result is (B,
                K). Without it each sequence is scored at its last attended token: (B,).
        """
        with self._role():
            output = trunk(self.model)(**batch.model_inputs(), use_cache=False, return_dict=True)
        hidden = output.last_hidden_state
        if ends is None:
            return self.head(pool_last(hidden, batch.inputs["attention_mask"]))
        return self.head(hidden.gather(1, ends.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])))

    def _role(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapter is None else role(self.model, self.adapter)

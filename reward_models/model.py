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

    def forward(self, batch: VlmBatch) -> Tensor:
        """Scores (B,) in float32 of the prompts and completions in ``batch``, padded on either side."""
        with self._role():
            output = trunk(self.model)(**batch.model_inputs(), use_cache=False, return_dict=True)
        return self.head(pool_last(output.last_hidden_state, batch.inputs["attention_mask"]))

    def trainable_state(self) -> dict[str, Tensor]:
        """The trained tensors (adapter or full weights, and the head) under their names in this module."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: tensor for name, tensor in self.state_dict().items() if name in trained}

    def _role(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapter is None else role(self.model, self.adapter)

"""Policy and critic behind one forward: one module, one engine, one loss, one backward.

Two backwards would be two optimizer steps under DeepSpeed and stale gradients under ZeRO-3, without a
message. Every call, also those without gradients, goes through ``PolicyValue.forward``, so that DDP and
DeepSpeed see it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from toolkit.errors import RecipeError
from toolkit.models.encoding import VlmBatch
from toolkit.models.heads import ScalarHead
from toolkit.models.loading import LoadedVlm, disable_dropout
from toolkit.models.logprobs import score_completions
from toolkit.models.roles import POLICY, REFERENCE, VALUE, add_role, role, roles_of, set_trainable
from toolkit.models.structure import inner_model

__all__ = ["Critic", "PolicyValue", "PolicyValueOutput", "build_policy_value"]

Critic = Literal["shared", "adapter"]


class PolicyValueOutput(NamedTuple):
    """Results a completion token, ``(B, T)``; 0 where ``mask`` is False.

    ``logprobs`` at the sampling temperature, ``values`` of the state before each token, ``entropy`` in nats.
    What was not asked for is None.
    """

    logprobs: Tensor
    mask: Tensor
    values: Tensor | None = None
    entropy: Tensor | None = None


class PolicyValue(nn.Module):
    """The model with its adapters, and a float32 value head.

    Args:
        model: a PEFT model with the roles ``default`` and ``ref``, and ``value`` for the ``adapter`` critic.
        hidden_size: width of the hidden states.
        critic: ``shared`` puts the head on the policy's own hidden states; ``adapter`` on those of the role
            ``value``, at the price of a second forward of the trunk. None: no critic and no head.
    """

    def __init__(self, model: nn.Module, hidden_size: int, *, critic: Critic | None) -> None:
        super().__init__()
        self.model = model
        self.critic = critic
        self.value_head = ScalarHead(hidden_size) if critic is not None else None

    def forward(
        self,
        batch: VlmBatch,
        *,
        temperature: float,
        role_name: str = POLICY,
        values: bool = False,
        entropy: bool = False,
        entropy_gradient: bool = True,
        head_only: bool = False,
    ) -> PolicyValueOutput:
        """Score the completions of ``batch`` under ``role_name``.

        Args:
            values: also the critic's values, where there is a critic.
            entropy: also the entropy of the policy; without ``entropy_gradient`` as a number to log.
            head_only: keep the values' gradient out of the policy's adapter (critic warm-up of a shared
            critic).
        """
        with role(self.model, role_name):
            scores = score_completions(
                self.model,
                batch,
                temperature=temperature,
                entropy=entropy,
                entropy_gradient=entropy_gradient,
            )
        if not values or self.value_head is None:
            return PolicyValueOutput(scores.logprobs, scores.mask, None, scores.entropy)
        hidden = scores.hidden.detach() if head_only and self.critic == "shared" else scores.hidden
        if self.critic == "adapter":
            with role(self.model, VALUE):
                hidden = score_completions(self.model, batch, temperature=temperature).hidden
        estimates = self.value_head(hidden).masked_fill(~scores.mask, 0.0)
        return PolicyValueOutput(scores.logprobs, scores.mask, estimates, scores.entropy)

    def policy_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters of the policy's adapter."""
        return [(name, item) for name, item in self._trainable() if not _head(name) and not _critic(name)]

    def critic_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters of the role ``value``; none for a shared critic."""
        return [(name, item) for name, item in self._trainable() if _critic(name)]

    def head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters of the value head."""
        return [(name, item) for name, item in self._trainable() if _head(name)]

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All of them, in the order of the optimizer's groups."""
        return [*self.policy_parameters(), *self.critic_parameters(), *self.head_parameters()]

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, item) for name, item in self.named_parameters() if item.requires_grad]


def _critic(name: str) -> bool:
    return f".{VALUE}." in name


def _head(name: str) -> bool:
    return name.startswith("value_head.")


def build_policy_value(vlm: LoadedVlm, *, critic: Critic | None, seed: int) -> PolicyValue:
    """Add the critic (if any) and the frozen reference, a copy of the policy as it is now.

    ``seed`` fixes the initial weights of the critic's adapter. Dropout is switched off for good: with it the
    importance ratio would not start at 1.

    Raises:
        RecipeError: the model has no adapter, or layers whose dropout cannot be switched off.
    """
    if POLICY not in roles_of(vlm.model):
        raise RecipeError(
            "model",
            "the rl stage trains an adapter on a frozen base, found a model without one",
            remedy="give an SFT adapter as model.id, or set model.lora",
        )
    attention_dropout = getattr(inner_model(vlm.model).config.get_text_config(), "attention_dropout", 0.0)
    if attention_dropout:
        raise RecipeError("model", f"attention_dropout is {attention_dropout}, PPO needs 0")
    if REFERENCE not in roles_of(vlm.model):
        add_role(vlm.model, REFERENCE, copy_from=POLICY)
    trained = [POLICY]
    if critic == "adapter":
        if VALUE not in roles_of(vlm.model):
            with torch.random.fork_rng(
                devices=[]
            ):  # the same critic on every process and in every run of a seed
                torch.manual_seed(seed)
                add_role(vlm.model, VALUE)
        trained.append(VALUE)
    set_trainable(vlm.model, trained)
    wrapper = PolicyValue(vlm.model, vlm.hidden_size, critic=critic).to(vlm.device)
    # Only activation checkpointing needs training mode; dropout is off either way.
    disable_dropout(wrapper)
    wrapper.train(bool(getattr(inner_model(vlm.model), "is_activation_checkpointing", False)))
    for name, parameter in wrapper.head_parameters():
        if parameter.dtype != torch.float32:
            raise RecipeError("model", f"{name} is {parameter.dtype}, expected float32")
    return wrapper

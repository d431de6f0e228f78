"""Memory of PPO's four roles over that of the SFT stage: live tensors of a tiny model, and counts for a 7B one.

    python benchmarks/ppo_memory.py [--json]                   (about 20 s on one core)

A tiny 4-bit LLaVA is trained for one step as SFT and for one iteration as PPO (policy, reference, critic adapter,
reward adapter), and the live tensors of the process are counted after each. ``excess_over_adapters`` is the growth
over what it should be: three more adapters, two heads, and the critic's gradients and optimizer state. The same
classes on the ``meta`` device with the sizes of Qwen2.5-VL-7B (rank 16, language model in NF4, the rest bfloat16) give
``roles_over_sft``: weights, gradients and optimizer state of PPO over those of SFT. ``four_models_over_sft`` is the
same with a 4-bit base for each role.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too
from peft import get_peft_model
from ppo_setup import load_policy, make_recipe, make_rows, make_trainer, save_base
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from toolkit.cli.guard import libraries_on_stderr
from toolkit.config.schema import LoraSpec, OptimizerSpec
from toolkit.models.encoding import collate
from toolkit.models.heads import ScalarHead
from toolkit.models.loading import LoadedVlm, lora_config
from toolkit.models.logprobs import completion_logprobs, score_completions
from toolkit.models.roles import POLICY, REFERENCE, REWARD, VALUE, add_role, role, role_parameters
from toolkit.models.structure import language_linear_names
from toolkit.rl.engine import build_optimizer
from toolkit.rl.policy_value import PolicyValue, build_policy_value
from toolkit.rl.rollout import PromptCache

RANK = 16
# NF4 with double quantisation: half a byte a weight, a byte of scale for 64 of them, a float32 for 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    with libraries_on_stderr():
        result = {**tiny(), **seven_billion()}
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for name, value in result.items():
        sys.stdout.write(
            f"{name:32}{value:>18,.4f}\n" if isinstance(value, float) else f"{name:32}{value:>18,}\n"
        )
    return 0


# ---- the tiny model, measured ------------------------------------------------------------------------------------


def tiny() -> dict[str, float]:
    """Live bytes of both stages, and the growth over the expected one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_base(folder / "base")
        before = live_bytes()
        vlm, optimizer = sft_step(base)
        sft = live_bytes() - before
        del vlm, optimizer
        ppo_parts = ppo_iteration(base, folder)
        ppo = live_bytes() - before
        wrapper, reward_head = ppo_parts.wrapper, ppo_parts.reward_head
        expected = roles_bytes(wrapper, reward_head)
    return {
        "tiny_sft_bytes": sft,
        "tiny_ppo_bytes": ppo,
        "tiny_expected_growth_bytes": expected,
        "excess_over_adapters": (ppo - sft) / expected,
    }


def live_bytes() -> int:
    """Bytes of all tensors in the process, each storage once, gradients included."""
    gc.collect()
    sizes: dict[int, int] = {}
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor) and item.device.type != "meta":
            for tensor in (item, item.grad if item.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def sft_step(base: Path) -> tuple[LoadedVlm, torch.optim.Optimizer]:
    """The adapter after one step of maximum likelihood; gradients and optimizer state are alive."""
    vlm = load_policy(base, bits=4, rank=RANK)
    optimizer = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad])
    prompts = PromptCache(vlm).encode(make_rows(4, size=48))
    logprobs, _ = completion_logprobs(vlm.model, collate(vlm, prompts, [torch.tensor([7, 8, 9])] * 4))
    (-logprobs.sum()).backward()
    optimizer.step()
    return vlm, optimizer


def ppo_iteration(base: Path, folder: Path) -> SimpleNamespace:
    """All four roles after one iteration; rollout and prompts are gone."""
    vlm = load_policy(base, bits=4, rank=RANK)
    add_role(vlm.model, REWARD)
    head = ScalarHead(vlm.hidden_size, init_std=0.02).requires_grad_(False)
    recipe = make_recipe(
        folder, ppo={"iterations": 1, "critic": "adapter"}, rollout={"prompts_per_iteration": 8},
        guards={"calibration_samples": 8},
    )  # fmt: skip
    trainer = make_trainer(vlm, make_rows(8, size=48), recipe)
    trainer.train()
    trainer.worker.cache = PromptCache(vlm)
    prompts = PromptCache(vlm).encode(make_rows(4, size=48))
    with torch.no_grad(), role(vlm.model, REWARD):  # the reward role is used as the others are
        head(vlm_hidden(vlm, prompts))
    trainer.run.release()
    return SimpleNamespace(trainer=trainer, wrapper=trainer.engine.module, reward_head=head)


def vlm_hidden(vlm: LoadedVlm, prompts: list[Any]) -> torch.Tensor:
    """States behind which a head scores a completion."""
    return score_completions(vlm.model, collate(vlm, prompts, [torch.tensor([7])] * len(prompts))).hidden


def roles_bytes(wrapper: PolicyValue, reward_head: torch.nn.Module) -> int:
    """What PPO holds beyond SFT: three adapters, two heads, the critic's gradients and optimizer state."""
    adapters = [p for name in (REFERENCE, VALUE, REWARD) for _, p in role_parameters(wrapper.model, name)]
    heads = [*(p for _, p in wrapper.head_parameters()), *reward_head.parameters()]
    critic = [*(p for _, p in wrapper.critic_parameters()), *(p for _, p in wrapper.head_parameters())]
    return weight_bytes(adapters) + weight_bytes(heads) + training_bytes(critic)


def weight_bytes(parameters: list[torch.nn.Parameter]) -> int:
    """Bytes of the weights themselves."""
    return sum(parameter.nbytes for parameter in parameters)


def training_bytes(parameters: list[torch.nn.Parameter]) -> int:
    """Gradient and AdamW's state: two moments, and a step count of four bytes."""
    return sum(3 * parameter.nbytes + 4 for parameter in parameters)


# ---- Qwen2.5-VL-7B, counted --------------------------------------------------------------------------------------


def seven_billion() -> dict[str, float]:
    """The same roles on the meta device; bytes of weights, gradients and optimizer state."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(qwen_config())
        base = base_bytes(model)
        total = sum(p.numel() for p in model.parameters())
        peft_model = get_peft_model(
            model, lora_config(model, LoraSpec(rank=RANK, alpha=32)), adapter_name=POLICY
        )
        add_role(peft_model, REWARD)
        config = model.config.get_text_config()
        vlm = LoadedVlm(peft_model, None, None, torch.device("meta"), "meta")  # type: ignore[arg-type]
        wrapper = build_policy_value(vlm, critic="adapter", seed=0)
        head = ScalarHead(config.hidden_size)
        optimizer = build_optimizer(wrapper, OptimizerSpec())
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    policy = [p for _, p in wrapper.policy_parameters()]
    sft = base + weight_bytes(policy) + training_bytes(policy)
    ppo = sft + roles_bytes(wrapper, head)
    if training_bytes(trained) != training_bytes(policy) + training_bytes(list(others(wrapper))):
        raise RuntimeError("the optimizer holds other parameters than the roles that train")
    return {
        "qwen_parameters": total,
        "qwen_base_gib": base / 2**30,
        "qwen_adapter_mib": weight_bytes(policy) / 2**20,
        "qwen_sft_gib": sft / 2**30,
        "qwen_ppo_gib": ppo / 2**30,
        "roles_over_sft": ppo / sft,
        "four_models_over_sft": (ppo + 3 * base) / sft,
    }


def others(wrapper: PolicyValue) -> Iterator[torch.nn.Parameter]:
    """What trains beside the policy."""
    for _, parameter in [*wrapper.critic_parameters(), *wrapper.head_parameters()]:
        yield parameter


def qwen_config() -> Qwen2_5_VLConfig:
    """The published sizes of Qwen2.5-VL-7B; the configuration class's defaults are others."""
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064,
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )  # fmt: skip


def base_bytes(model: torch.nn.Module) -> int:
    """The language model's linear weights in NF4, everything else in bfloat16."""
    quantised = {f"{name}.weight" for name in language_linear_names(model)}
    return round(
        sum(p.numel() * (NF4_BYTES if name in quantised else 2) for name, p in model.named_parameters())
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""The optimizer step on one process, DDP or DeepSpeed, through accelerate, with every silent loss asserted.

Each of these goes wrong without a message unless it is checked: a world of one process on every rank, a
dropped DeepSpeed plugin, a hidden gradient clipping of 1.0, a second backward that is a second optimizer
step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin, broadcast_object_list
from torch import Tensor, nn

from toolkit.config.schema import OptimizerSpec
from toolkit.errors import EnvironmentLacking, RunFailed
from toolkit.rl.policy_value import PolicyValue
from toolkit.runs.processes import process_count

__all__ = ["Engine", "build_optimizer", "learning_rate_scale"]


def build_optimizer(module: PolicyValue, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """Parameter groups: adapters of policy and critic at ``learning_rate``, the head at its own rate.

    The policy's group is the first; a shared critic has no group of its own beside the head.

    Raises:
        EnvironmentLacking: an 8-bit optimizer is asked for and bitsandbytes is not installed.
    """
    groups = [
        {"params": [parameter for _, parameter in named], "lr": rate}
        for named, rate in (
            (module.policy_parameters(), spec.learning_rate),
            (module.critic_parameters(), spec.learning_rate),
            (module.head_parameters(), spec.head_learning_rate),
        )
        if named
    ]
    options: dict[str, Any] = {"betas": spec.betas, "weight_decay": spec.weight_decay}
    if spec.name == "adamw":
        return torch.optim.AdamW(groups, **options)
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise EnvironmentLacking(
            f"optimizer {spec.name} needs bitsandbytes", remedy="pip install bitsandbytes, or use adamw"
        ) from error
    kind = optim.AdamW8bit if spec.name == "adamw_8bit" else optim.PagedAdamW8bit
    return kind(groups, **options)


def learning_rate_scale(spec: OptimizerSpec, iteration: int, iterations: int) -> float:
    """What the learning rates of an iteration (from 0) are multiplied by: warm-up, then the schedule."""
    if iteration < spec.warmup_iterations:
        return (iteration + 1) / spec.warmup_iterations
    done = (iteration - spec.warmup_iterations) / max(1, iterations - spec.warmup_iterations)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[
        spec.schedule
    ]


class Engine:
    """Holds the prepared module and optimizer.

    Attributes:
        module: the bare ``PolicyValue``.
        prepared: what forwards go through: the module, DDP around it, or a DeepSpeed engine.
        world: number of processes.
        rank: this process.
    """

    def __init__(
        self, module: PolicyValue, spec: OptimizerSpec, *, micro_batch: int, accumulation: int = 1
    ) -> None:
        """Prepare ``module`` for training.

        Args:
            module: policy and critic; its trainable parameters are declared.
            spec: the optimizer.
            micro_batch: rows a process puts through one forward with gradients.
            accumulation: backwards an optimizer step.

        Raises:
            RunFailed: the launcher asked for more processes than came together, or DeepSpeed got lost.
        """
        # On CPUs a plain Accelerator() makes a world of one on every rank under DeepSpeed's launcher.
        PartialState(cpu=not torch.cuda.is_available())
        # Accumulation is done by ``step``; given here, because "auto" of a launcher's file cannot be read
        # otherwise.
        plugin = GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False)
        self.accelerator = Accelerator(gradient_accumulation_plugin=plugin)
        self.module, self.spec, self.accumulation = module, spec, accumulation
        self.optimizer = build_optimizer(module, spec)
        self._rates, self._scale = [group["lr"] for group in self.optimizer.param_groups], 1.0
        self._names = module.trained_parameters()
        self._check_world()
        self.deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if self.deepspeed:
            self._configure_deepspeed(micro_batch)
        self.prepared, self.optimizer = self.accelerator.prepare(module, self.optimizer)
        self._check_prepared()
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.device = self.accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
        return int(self.prepared.zero_optimization_stage()) if self.deepspeed else 0

    def all_sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes, on every process."""
        return values if self.world == 1 else self.accelerator.reduce(values.to(self.device), reduction="sum")

    def anywhere(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any process."""
        return float(self.all_sum(torch.tensor(float(flag), dtype=torch.float64))) > 0

    def agreed(self, value: Any) -> Any:
        """The first process's ``value`` on all: what they decide together must not hang on a rounding of one."""
        if self.world == 1:
            return value
        both = [value]
        broadcast_object_list(both)
        return both[0]

    def anneal(self, iteration: int, iterations: int) -> None:
        """Give the learning rates what the schedule says for ``iteration`` (from 0)."""
        self._scale = learning_rate_scale(self.spec, iteration, iterations)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self._scale

    def hold_policy(self, held: bool) -> None:
        """Hold the policy's adapter still (learning rate 0) or release it: critic warm-up."""
        self.optimizer.param_groups[0]["lr"] = 0.0 if held else self._rates[0] * self._scale

    def step(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        """One optimizer step: each loss is computed and backpropagated in turn, gradients add up.

        The losses are scaled so that their sum over all processes and calls is the loss to minimise; the mean
        that DDP and DeepSpeed take over processes is undone here. Returns the gradient norm before clipping.

        Raises:
            RunFailed: the gradient is infinite or NaN; it would make all weights so.
        """
        if len(losses) != self.accumulation:
            raise RunFailed(f"{len(losses)} losses for {self.accumulation} accumulation steps")
        if self.deepspeed:
            return self._step_deepspeed(losses)
        self.optimizer.zero_grad()
        for index, loss in enumerate(losses):
            last = index == len(losses) - 1
            wait = contextlib.nullcontext() if last else self.accelerator.no_sync(self.prepared)
            with wait:
                self.accelerator.backward(loss() * self.world)
        parameters = [parameter for _, parameter in self._names]
        limit = self.spec.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit))
        _refuse_broken(norm)
        self.optimizer.step()
        return norm

    def _step_deepspeed(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        """accelerate's backward steps the engine itself, which divides each loss by the accumulation steps."""
        for index, loss in enumerate(losses):
            self.prepared.set_gradient_accumulation_boundary(index == len(losses) - 1)
            self.prepared.backward(loss() * self.world * self.accumulation)
        self.prepared.step()
        norm = self.prepared.get_global_grad_norm()
        if norm is None:
            return float("nan")
        _refuse_broken(float(norm))
        return float(norm)

    @contextlib.contextmanager
    def watch_gradients(self) -> Iterator[set[str]]:
        """Names of the trainable parameters that get a gradient inside the block; works under every engine."""
        seen: set[str] = set()
        handles = [
            parameter.register_hook(lambda _, name=name: seen.add(name)) for name, parameter in self._names
        ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def trainable_names(self) -> list[str]:
        """Names of all parameters that the optimizer holds."""
        return [name for name, _ in self._names]

    @contextlib.contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The bare module with whole weights: ZeRO-3 gathers them for the block, elsewhere they are there."""
        if self.zero_stage < 3:
            yield self.module
            return
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        with deepspeed.zero.GatheredParameters(list(self.module.parameters())):
            remove_hooks(self.prepared)
            try:
                yield self.module
            finally:
                add_hooks(self.prepared)

    # ---- assertions ----------------------------------------------------------------------------------------

    def _check_world(self) -> None:
        wanted, got = process_count(), self.accelerator.num_processes
        if wanted != got:
            raise RunFailed(
                f"the launcher started {wanted} processes, but {got} came together: each would train alone",
                remedy="start with 'vlm-rlhf run … --launch …' or 'accelerate launch --config_file …'",
            )
        asked = self.accelerator.state.deepspeed_plugin is not None
        if asked and self.accelerator.distributed_type != DistributedType.DEEPSPEED:
            raise RunFailed("a DeepSpeed configuration was given, but accelerate dropped it")

    def _configure_deepspeed(self, micro_batch: int) -> None:
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = micro_batch
        config["gradient_accumulation_steps"] = self.accumulation
        config["train_batch_size"] = micro_batch * self.accumulation * self.accelerator.num_processes
        # Without this line accelerate sets 1.0.
        config["gradient_clipping"] = self.spec.max_grad_norm or 0.0
        config["zero_allow_untested_optimizer"] = True
        config["zero_force_ds_cpu_optimizer"] = False

    def _check_prepared(self) -> None:
        """What accelerate and DeepSpeed made of the module: float32 where it trains, and the recipe's clipping."""
        half = [name for name, parameter in self._names if parameter.dtype != torch.float32]
        if half or self.accelerator.mixed_precision != "no":
            raise RunFailed(
                f"the launcher's mixed_precision is {self.accelerator.mixed_precision!r}; adapters and value head must "
                f"stay float32 ({len(half)} of {len(self._names)} parameters do not)",
                remedy="set mixed_precision: 'no' in the accelerate file, and model.dtype: bfloat16 in the recipe",
            )
        if self.deepspeed:
            found, wanted = float(self.prepared.gradient_clipping()), self.spec.max_grad_norm or 0.0
            if found != wanted:
                raise RunFailed(f"DeepSpeed clips gradients at {found}, the recipe says {wanted}")


def _refuse_broken(norm: float) -> None:
    """The same on every process: the norm is that of the whole gradient."""
    if not math.isfinite(norm):
        raise RunFailed(
            f"the gradient is not finite (norm {norm}): training has broken down",
            remedy="go on from the last checkpoint or best/ with a lower optimizer.learning_rate or max_grad_norm",
        )

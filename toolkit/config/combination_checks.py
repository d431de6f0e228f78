"""Values that are right one by one and wrong together, or wrong on this machine or with this launcher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.config import schema
from toolkit.config.devices import gpu_count
from toolkit.config.findings import Findings
from toolkit.config.messages import suggestion
from toolkit.config.policy_checks import check_policy
from toolkit.config.reward_checks import check_rewards
from toolkit.config.rollout_checks import check_backend

__all__ = ["check_combinations"]

# Settings of ``ppo`` that nothing reads without a critic.
CRITIC_SETTINGS = (
    "gamma",
    "gae_lambda",
    "value_clip",
    "value_weight",
    "critic",
    "critic_warmup_iterations",
    "potential_term",
)
_UNTRACKED_STAGES = ("preferences", "eval", "report", "pipeline")
_TRAINABLE = (schema.SftRecipe, schema.RewardRecipe, schema.RlRecipe, schema.PreferenceRecipe)


def check_combinations(recipe: schema.Recipe, findings: Findings, launch: str = "none") -> None:
    """Everything that can be judged from the recipe, the launcher's name and the devices present."""
    for dotted, model in _models(recipe):
        _check_precision(dotted, model, findings)
    if isinstance(recipe, _TRAINABLE):
        _check_trainable(recipe, findings, launch)
    if isinstance(recipe, schema.RewardRecipe | schema.PreferenceRecipe):
        _check_pair_sources(recipe, findings)
    if isinstance(recipe, schema.RewardRecipe):
        _check_reward_loss(recipe.loss, findings)
        if recipe.ensemble is not None and launch.startswith(("zero", "fsdp")):
            findings.add(
                "ensemble", f"is trained without {launch}: its members follow one another in a process"
            )
    if isinstance(recipe, schema.PreferencesRecipe) and recipe.rank_by and recipe.raters != "simulated":
        findings.add("raters", "beside rank_by: expected one of them, because rank_by does the ranking")
    if isinstance(recipe, schema.PreferencesRecipe):
        check_rewards("rank_by", recipe.rank_by, findings)
    if isinstance(recipe, schema.RlRecipe):
        check_rewards("rewards", recipe.rewards, findings)
        _check_ppo(recipe, findings, launch)
        check_backend(recipe, findings)
        check_policy(recipe, findings, launch)
    if isinstance(recipe, schema.EvalRecipe) and recipe.best_of_n is not None and recipe.reward_model is None:
        findings.add("best_of_n", "the reward model chooses: expected reward_model, found none")
    if isinstance(recipe, schema.EvalRecipe):
        _check_evaluation(recipe, findings)
    if recipe.run.report_to and recipe.stage in _UNTRACKED_STAGES:
        findings.add("run.report_to", f"stage {recipe.stage} trains nothing to be tracked: expected []")
    _check_validation(recipe, findings)
    trainer = getattr(recipe, "trainer", {})
    for option in ("bf16", "fp16"):
        if trainer.get(option) is True and gpu_count() == 0:
            findings.add(
                f"trainer.{option}", "needs a GPU: on a CPU half precision is slower, set model.dtype instead"
            )


def _models(recipe: schema.Recipe) -> Iterator[tuple[str, schema.ModelSpec]]:
    if isinstance(recipe, schema.EvalRecipe):
        for index, system in enumerate(recipe.systems):
            yield f"systems.{index}.model", system.model
    elif isinstance(model := getattr(recipe, "model", None), schema.ModelSpec):
        yield "model", model


def _check_precision(dotted: str, model: schema.ModelSpec, findings: Findings) -> None:
    on_cpu = gpu_count() == 0
    if on_cpu and model.dtype == "float16":
        findings.add(f"{dotted}.dtype", "float16 needs a GPU; use float32")
    quantization = model.quantization
    if on_cpu and quantization is not None and quantization.compute_dtype == "float16":
        findings.add(
            f"{dotted}.quantization.compute_dtype",
            "float16 takes seconds a layer on a CPU; use float32 or bfloat16",
        )
    if model.attn_implementation == "flash_attention_2":
        if on_cpu:
            findings.add(f"{dotted}.attn_implementation", "flash_attention_2 needs a GPU; use sdpa")
        elif model.dtype == "float32":
            findings.add(f"{dotted}.attn_implementation", "flash_attention_2 needs dtype bfloat16 or float16")


def _check_trainable(recipe: schema.Recipe, findings: Findings, launch: str) -> None:
    model: schema.ModelSpec = recipe.model  # type: ignore[union-attr]
    quantization = model.quantization
    has_adapter = model.lora is not None or _is_adapter(model.id)
    whole_model = (Path(model.id) / "config.json").is_file()
    if quantization is not None and not has_adapter and whole_model:
        findings.add("model.quantization", "quantised weights cannot be trained; add model.lora")
    if quantization is None or not launch.startswith(("zero3", "fsdp")):
        return
    if quantization.bits == 8:
        findings.add("model.quantization.bits", f"8-bit weights cannot be split by {launch}; use 4, or zero2")
    elif quantization.storage_dtype != model.dtype and not (
        launch.startswith("zero3") and (quantization.storage_dtype, model.dtype) == ("uint8", "float32")
    ):
        findings.add(
            "model.quantization.storage_dtype",
            f"{launch} splits weights of one dtype: expected '{model.dtype}' as in model.dtype, "
            f"found '{quantization.storage_dtype}'",
        )


def _check_reward_loss(loss: schema.RewardLossSpec, findings: Findings) -> None:
    for name, kind in (("label_smoothing", "bradley_terry"), ("tie_threshold", "rao_kupper")):
        default = type(loss).model_fields[name].default  # a resolved recipe states every default
        if getattr(loss, name) != default and loss.kind != kind:
            findings.add(f"loss.{name}", f"belongs to loss.kind={kind}; with {loss.kind} it would do nothing")


def _check_pair_sources(recipe: schema.RewardRecipe | schema.PreferenceRecipe, findings: Findings) -> None:
    for part in ("train", "val"):
        for index, source in enumerate(getattr(recipe.data, part)):
            if source.kind != "rows":
                findings.add(
                    f"data.{part}.{index}.kind",
                    f"expected 'rows' (chosen and rejected completions), found '{source.kind}'; "
                    "a preferences recipe makes pairs from captions and questions",
                )


def _check_ppo(recipe: schema.RlRecipe, findings: Findings, launch: str) -> None:
    ppo, rollout = recipe.ppo, recipe.rollout
    samples = rollout.prompts_per_iteration * rollout.samples_per_prompt
    parts = ppo.minibatches * ppo.gradient_accumulation
    if samples < parts:
        findings.add("ppo.minibatches", f"{samples} samples an iteration cannot be cut into {parts} parts")
    elif samples % parts:
        findings.add(
            "ppo.minibatches",
            f"rollout.prompts_per_iteration × samples_per_prompt = {samples} must divide by ppo.minibatches × "
            f"gradient_accumulation = {parts}",
        )
    if recipe.optimizer.warmup_iterations >= ppo.iterations:
        findings.add(
            "optimizer.warmup_iterations",
            f"found {recipe.optimizer.warmup_iterations} of {ppo.iterations} iterations; leave some to the full rate",
        )
    if ppo.critic_warmup_iterations >= ppo.iterations:
        findings.add(
            "ppo.critic_warmup_iterations",
            f"the policy never trains: all {ppo.iterations} iterations are warm-up",
        )
    for name in ("target_nats", "horizon") if recipe.kl.controller == "fixed" else ():
        if getattr(recipe.kl, name) != getattr(schema.KlSpec(), name):
            findings.add(f"kl.{name}", "is read by kl.controller 'adaptive', found 'fixed'")
    if recipe.kl.controller == "adaptive" and recipe.kl.coefficient == 0:
        findings.add("kl.coefficient", "an adaptive controller multiplies it, so it stays 0; start above 0")
    # An error of 20 % either way is what the controller reacts to at most: this much of it at once would end at 0.
    if recipe.kl.controller == "adaptive" and 0.2 * samples >= recipe.kl.horizon:
        findings.add(
            "kl.horizon",
            f"found {recipe.kl.horizon:g} with {samples} completions an iteration: a single one could take the "
            f"coefficient to 0, where it stays; expected more than {0.2 * samples:g}, usually many times that",
        )
    if all(term.weight == 0 for term in recipe.rewards):
        findings.add("rewards", "every term weighs 0: nothing would be learned")
    for index, term in enumerate(recipe.rewards):
        if term.normalise == "group" and rollout.samples_per_prompt < 2:
            findings.add(
                f"rewards.{index}.normalise",
                "'group' compares the samples of a prompt, and rollout.samples_per_prompt is 1: all would be 0",
            )
    _check_estimator(recipe, findings)
    if launch.startswith("zero3") and recipe.kl.refresh_reference_every_iterations is not None:
        findings.add(
            "kl.refresh_reference_every_iterations",
            f"{launch} splits the reference's weights; use zero2, or no refresh",
        )
    if launch.endswith("-offload") and recipe.optimizer.name != "adamw":
        findings.add("optimizer.name", f"{launch} brings its own AdamW on the host; expected 'adamw'")


def _check_estimator(recipe: schema.RlRecipe, findings: Findings) -> None:
    """What an estimator needs, and settings that it would ignore."""
    ppo, defaults = recipe.ppo, schema.PpoSpec()
    if ppo.estimator in ("rloo", "grpo") and recipe.rollout.samples_per_prompt < 2:
        findings.add(
            "rollout.samples_per_prompt",
            f"ppo.estimator '{ppo.estimator}' compares the samples of a prompt: expected at least 2, found 1",
        )
    if ppo.estimator == "scst" and any(term.normalise == "group" for term in recipe.rewards):
        findings.add(
            "rewards", "a greedy baseline is one sample a prompt: normalise 'group' has no meaning with scst"
        )
    if ppo.estimator != "running" and ppo.baseline_decay != defaults.baseline_decay:
        findings.add("ppo.baseline_decay", f"only estimator 'running' has one, found '{ppo.estimator}'")
    names = [term.name or term.term.rpartition(":")[2] for term in recipe.rewards]
    if ppo.potential_term is not None and ppo.potential_term not in names:
        findings.add(
            "ppo.potential_term", f"expected a reward term ({', '.join(names)}), found '{ppo.potential_term}'"
        )
    if ppo.potential_term is None and ppo.potential_weight != defaults.potential_weight:
        findings.add("ppo.potential_weight", "needs ppo.potential_term, which is not set")
    if ppo.estimator != "gae":
        for name in CRITIC_SETTINGS:
            if getattr(ppo, name) != getattr(defaults, name):
                findings.add(f"ppo.{name}", f"estimator '{ppo.estimator}' has no critic: take the line out")


def _check_evaluation(recipe: schema.EvalRecipe, findings: Findings) -> None:
    names = [system.name for system in recipe.systems]
    for index, name in enumerate(names):
        if name in names[:index] or name in ("blind", "human"):
            findings.add(f"systems.{index}.name", f"'{name}' is taken; give each system a name of its own")
    if recipe.blind_from is not None and recipe.blind_from not in names:
        hint = suggestion(recipe.blind_from, names)
        findings.add(
            "blind_from", f"expected one of the systems {', '.join(names)}, found '{recipe.blind_from}'{hint}"
        )
    rows = [*names, "blind", "human"]
    for index, pair in enumerate(recipe.differences):
        for name in pair:
            if name not in rows:
                hint = suggestion(name, rows)
                findings.add(
                    f"differences.{index}", f"expected two of {', '.join(rows)}, found '{name}'{hint}"
                )
    pairs = recipe.on_policy_pairs
    if pairs is not None and pairs.system not in names:
        hint = suggestion(pairs.system, names)
        findings.add(
            "on_policy_pairs.system",
            f"expected one of the systems {', '.join(names)}, found '{pairs.system}'{hint}",
        )
    if recipe.reward_model is None:
        for field in ("text_only_reward_model", "preference_pairs", "on_policy_pairs"):
            if getattr(recipe, field):
                findings.add(field, "is read together with reward_model, which is not set")


def _check_validation(recipe: schema.Recipe, findings: Findings) -> None:
    data = getattr(recipe, "data", None)
    if not isinstance(data, schema.DataSpec) or data.val:
        return
    if recipe.run.eval_every_steps is not None:
        findings.add("run.eval_every_steps", "nothing to evaluate on: data.val is empty")
    if isinstance(recipe, schema.RewardRecipe) and recipe.early_stopping_patience is not None:
        findings.add("early_stopping_patience", "needs held-out pairs: data.val is empty")


def _is_adapter(name: str) -> bool:
    return (Path(name) / "adapter_config.json").is_file()

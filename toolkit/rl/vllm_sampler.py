"""Phase 1 on a vLLM server: the policy's adapter goes there after every update, prompts go, completions come back."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object

from toolkit.config.schema import ModelSpec, RlRecipe, RolloutSpec, VllmSpec
from toolkit.data.images import load_image
from toolkit.errors import RecipeError, RunFailed, ToolkitError
from toolkit.models.encoding import EncodedPrompt
from toolkit.models.generation import GeneratedCompletion
from toolkit.models.loading import LoadedVlm
from toolkit.models.roles import POLICY, role_parameters
from toolkit.models.structure import language_model_name
from toolkit.models.vllm_protocol import (
    ProtocolError,
    Sampling,
    compact_ids,
    completions_of,
    picture_url,
    request_body,
)
from toolkit.models.vllm_server import GENERATE, LOAD, UNLOAD, ServerLost, ServerRefused, connect
from toolkit.records import PromptRow
from toolkit.rl.engine import Engine
from toolkit.runs.atomic import atomic_directory
from toolkit.runs.threads import map_in_threads

__all__ = ["SamplerFailed", "VllmSampler", "check_layers", "open_sampler"]

_logger = logging.getLogger("vlm_rlhf.rl")


class SamplerFailed(RunFailed):
    """The server gave no completions that can be trained on. Raised on all processes together."""


def open_sampler(vlm: LoadedVlm, engine: Engine, recipe: RlRecipe, run: Path) -> VllmSampler | None:
    """The recipe's server, or None where it samples here; errors as of ``VllmSampler``."""
    if recipe.rollout.backend != "vllm":
        return None
    shared, folder = (recipe.rollout.vllm or VllmSpec()).adapter_folder, run / "vllm-adapters"
    if shared is not None:  # others may keep theirs there: a run deletes all that is in its folder
        own = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]
        folder = Path(shared).expanduser() / f"{run.name}-{own}"
    return VllmSampler(vlm, engine, recipe.model, recipe.rollout, folder)


def check_layers(vlm: LoadedVlm) -> None:
    """A vLLM server ignores what an adapter changes outside the language model, and says so in its log alone.

    Raises:
        RecipeError: the policy's adapter has such parts.
    """
    inside = f".{language_model_name(vlm.model)}."
    beside = [name for name, _ in role_parameters(vlm.model, POLICY) if inside not in f".{name}"]
    if beside:
        raise RecipeError(
            "rollout.backend",
            f"vllm adapts the language model alone; this adapter has {len(beside)} other parts, such as {beside[0]}",
            remedy="use rollout.backend: transformers, or an adapter of the language model",
        )


class VllmSampler:
    """Samples of the policy as it is now, drawn by a server.

    Args:
        vlm: the policy; its adapter alone is sent.
        engine: tells the processes apart. The first writes and loads the adapter, each sends its own prompts.
        model: the recipe's, for the base.
        spec: the recipe's, with the server's address.
        folder: where adapters are written, and nothing else is: it is removed at the end.

    Raises:
        EnvironmentLacking: no server, or one without adapters or the token route.
        RecipeError: it serves another base, or the adapter is one that it would not take whole.
    """

    def __init__(
        self, vlm: LoadedVlm, engine: Engine, model: ModelSpec, spec: RolloutSpec, folder: Path
    ) -> None:
        self.vlm, self.engine, self.spec = vlm, engine, spec
        self.settings = spec.vllm or VllmSpec()
        check_layers(vlm)
        self.server, self.base = connect(self.settings, model)
        self.folder = folder.resolve()
        self._loaded: str | None = None  # on the first process: the adapter that the server has

    def sample(
        self,
        rows: Sequence[PromptRow],
        prompts: Sequence[EncodedPrompt],
        *,
        temperature: float,
        samples: int,
        seed: int,
        row_seeds: Sequence[int] | None = None,
        alike: bool = False,
    ) -> list[GeneratedCompletion]:
        """``samples`` completions a row, those of a row together, with the server's log-probabilities.

        To be called by all processes, with the policy active and its weights gathered. With ``alike`` all pass the
        same rows and get the same completions: one asks. Seeds as in ``RolloutWorker.sample``.

        Raises:
            SamplerFailed: the server is gone, refuses, or reads other prompts.
        """
        name = self._shared(self._publish)
        seeds = _seeds(seed, len(rows)) if row_seeds is None else list(row_seeds)
        each = samples if row_seeds is None else 1  # completions of one request

        def ask() -> list[GeneratedCompletion]:
            return self._ask(name, rows, prompts, seeds, each, samples // each, temperature)

        return self._shared(ask) if alike else self._together(ask)

    def close(self) -> None:
        """Take the adapter off the server and off the disk, as far as that still works."""
        if not self.engine.is_main:
            return
        if self._loaded is not None:
            self.server.timeout_seconds, self.server.retry_seconds = 10.0, 0.0
            self._unload(self._loaded)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- the adapter ---------------------------------------------------------------------------------------

    def _publish(self) -> str:
        """Write and load the adapter where the server has another one; returns its name, a hash of its weights."""
        name = f"vlm-rlhf-{self._fingerprint()}"
        if name == self._loaded:
            return name
        path = self.folder / name
        with atomic_directory(path) as staging:
            self.vlm.model.save_pretrained(staging, selected_adapters=[POLICY], save_embedding_layers=False)  # type: ignore[operator]
        self.server.post(LOAD, {"lora_name": name, "lora_path": str(path), "load_inplace": True})
        before, self._loaded = self._loaded, name
        if before is not None:
            self._unload(before)
        for old in self.folder.iterdir():
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)
        return name

    def _unload(self, name: str) -> None:
        try:
            self.server.post(UNLOAD, {"lora_name": name})
        except (ServerLost, ServerRefused) as error:
            _logger.warning("the adapter %s stays on the server: %s", name, error)

    def _fingerprint(self) -> str:
        """A hash of the adapter's weights and scale: equal for equal adapters, also after a resume."""
        config = self.vlm.model.peft_config[POLICY]  # type: ignore[union-attr, index]
        found = hashlib.sha256(f"{self.base} {config.r} {config.lora_alpha} {config.use_rslora}".encode())
        for name, parameter in role_parameters(self.vlm.model, POLICY):
            found.update(name.encode())
            found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]

    # ---- requests ------------------------------------------------------------------------------------------

    def _ask(
        self,
        name: str,
        rows: Sequence[PromptRow],
        prompts: Sequence[EncodedPrompt],
        seeds: Sequence[int],
        each: int,
        requests: int,
        temperature: float,
    ) -> list[GeneratedCompletion]:
        """``requests`` requests a row of ``each`` completions, many under way at once; a seed for each request."""
        plans = [Sampling(self.spec.max_new_tokens, temperature, each, seed) for seed in seeds]
        # Tokenizers are not for several threads; what takes long, pictures and waiting, is.
        ids = [compact_ids(self.vlm, row.prompt) for row in rows]

        def of_row(index: int) -> list[Any]:
            pictures = [picture_url(load_image(source)) for source in rows[index].images]
            own = plans[index * requests : (index + 1) * requests]
            bodies = (request_body(self.vlm, name, ids[index], pictures, plan) for plan in own)
            return [self.server.post(GENERATE, body) for body in bodies]

        threads = self.settings.max_requests
        found = map_in_threads(of_row, range(len(rows)), threads=threads, name="vllm request")
        answers = [answer for of_one in found for answer in of_one]
        return [
            completion
            for place, (answer, plan) in enumerate(zip(answers, plans, strict=True))
            for completion in completions_of(self.vlm, answer, prompts[place // requests].input_ids, plan)
        ]

    # ---- all processes together ----------------------------------------------------------------------------

    def _shared(self, work: Any) -> Any:
        """What ``work`` returns on the first process, on all; nobody goes on where it fails there."""
        found = self._together(work if self.engine.is_main else lambda: None)
        if self.engine.world > 1:
            both = [found]
            broadcast_object_list(both)
            found = both[0]
        return found

    def _together(self, work: Any) -> Any:
        """What ``work`` returns here; where it fails on any process, it fails on all, with the first one's reason."""
        found, failure = None, None
        try:
            found = work()
        except (ServerLost, ServerRefused, ProtocolError, ToolkitError, OSError) as error:
            failure = self._reason(error)
        failures = gather_object([failure]) if self.engine.world > 1 else [failure]
        first = next((item for item in failures if item is not None), None)
        if first is not None:
            raise SamplerFailed(first[0], remedy=first[1])
        return found

    def _reason(self, error: Exception) -> tuple[str, str | None]:
        url, again = self.settings.url, "--resume goes on from the last checkpoint"
        if isinstance(error, ServerLost):
            return f"the vLLM server at {url} is gone: {error}", f"start it again; {again}"
        if isinstance(error, ServerRefused):
            return f"the vLLM server at {url} refuses: {error}", (
                f"its log says more; the adapter has to be readable there under {self.folder}, its rank within "
                "--max-lora-rank, and prompt and completion within --max-model-len"
            )
        if isinstance(error, ProtocolError):
            return f"the vLLM server at {url}: {error}", error.remedy
        if isinstance(error, ToolkitError):
            return error.message, error.remedy
        return f"{self.folder} could not be written: {error}", f"free some space; {again}"


def _seeds(seed: int, rows: int) -> list[int]:
    """A seed a request, so far apart that the server's own counting up within a request meets no other's."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2**52, (rows,), generator=generator)
    return [int(value) for value in drawn]

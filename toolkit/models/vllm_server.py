"""A running ``vllm serve``: requests over HTTP, what must be switched on there, and the command that starts it so.

Only the standard library speaks here: vLLM is not installed beside the trainer.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import shlex
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from toolkit.config.schema import ModelSpec, VllmSpec
from toolkit.errors import EnvironmentLacking, RecipeError
from toolkit.models.sources import ModelSource, find_source

__all__ = ["ServerLost", "ServerRefused", "VllmServer", "connect", "serve_command"]

GENERATE, LOAD, UNLOAD = "/inference/v1/generate", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
# What a proxy or a server that is starting or going down answers.
_PASSING = (502, 503, 504)
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes

_logger = logging.getLogger("vlm_rlhf.models.vllm")


class ServerLost(Exception):
    """The server could not be reached, or did not answer, for as long as it was asked."""


class ServerRefused(Exception):
    """The server answered with an error; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status, self.message = status, message


class VllmServer:
    """Requests to one server. Safe to use from several threads.

    Args:
        url: where it listens; a path behind host and port is kept.
        timeout_seconds: of one request.
        retry_seconds: how long a server that is gone is asked again. Requests may be repeated, for all that draw random
            numbers carry a seed.

    ``VLLM_API_KEY`` of the environment is sent, the variable that the server reads its own key from.
    """

    def __init__(self, url: str, *, timeout_seconds: float, retry_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.timeout_seconds, self.retry_seconds = timeout_seconds, retry_seconds
        # The machine's proxy is for other machines' web sites: a prompt's pictures do not go through it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The answer to a GET, JSON decoded.

        Raises:
            ServerLost: no answer.
            ServerRefused: an error for an answer.
        """
        return self._asked(urllib.request.Request(self.url + path, headers=self._headers()))

    def post(self, path: str, body: Any) -> Any:
        """The answer to a POST of ``body`` as JSON; errors as in ``get``."""
        data = json.dumps(body).encode()
        headers = {**self._headers(), "Content-Type": "application/json"}
        return self._asked(urllib.request.Request(self.url + path, data, headers))

    def _headers(self) -> dict[str, str]:
        key = os.environ.get("VLLM_API_KEY")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _asked(self, request: urllib.request.Request) -> Any:
        """The answer, asked for again with growing pauses while nothing answers."""
        deadline, pause = time.monotonic() + self.retry_seconds, 0.5
        while True:
            try:
                return self._once(request)
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ServerLost(reason) from error
                _logger.warning("%s does not answer (%s); asking again", self.url, reason)
                time.sleep(min(pause, left))
                pause = min(2 * pause, 10.0)

    def _once(self, request: urllib.request.Request) -> Any:
        try:
            with self._opener.open(request, timeout=self.timeout_seconds) as answer:
                return _decoded(answer.read())
        except urllib.error.HTTPError as error:
            if error.code in _PASSING:
                raise
            raise ServerRefused(error.code, _told(_decoded(error.read()))) from error


def _decoded(body: bytes) -> Any:
    """JSON where it is JSON, text elsewhere (an adapter's loading is confirmed in words)."""
    text = body.decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _told(answer: Any) -> str:
    """The message in an error's body."""
    found = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    return " ".join(str(found).split())[:500]


def connect(spec: VllmSpec, model: ModelSpec) -> tuple[VllmServer, str]:
    """A server that can do what an RL run asks of it, and its name for the base.

    Raises:
        EnvironmentLacking: nobody answers, adapters cannot be loaded, or tokens cannot be asked for.
        RecipeError: it serves another base.
    """
    source = find_source(model.id, model.revision)
    command = serve_command(source, model, spec)
    server = VllmServer(spec.url, timeout_seconds=min(spec.timeout_seconds, 60.0), retry_seconds=0.0)
    try:
        served = _served(server.get("/v1/models"))
        _check_switches(server, command)
    except ServerLost as error:
        raise EnvironmentLacking(
            f"rollout.backend is vllm, but nobody answers at {spec.url}: {error}",
            remedy=f"start the server: {command}",
        ) from error
    except ServerRefused as error:
        raise EnvironmentLacking(
            f"{spec.url} is no vLLM server that this run can use: {error}",
            remedy=f"start one: {command} (and set VLLM_API_KEY here if it was set there)",
        ) from error
    wanted = spec.served_model or source.base
    name = next((name for name, root in served if wanted in (name, root) or _same(wanted, root)), None)
    if name is None:
        raise RecipeError(
            "rollout.vllm",
            f"this run trains an adapter of {wanted}; {spec.url} serves {', '.join(n for n, _ in served)}",
            remedy=f"start the server with that base: {command}; or, if it is the same under another name, set "
            "rollout.vllm.served_model",
        )
    return VllmServer(spec.url, timeout_seconds=spec.timeout_seconds, retry_seconds=spec.retry_seconds), name


def _served(answer: Any) -> list[tuple[str, str]]:
    """(name, root) of the base models, adapters left out."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ServerRefused(200, "GET /v1/models answered something else than a list of models")
    cards = [card for card in answer["data"] if isinstance(card, dict) and not card.get("parent")]
    return [(str(card.get("id")), str(card.get("root") or card.get("id"))) for card in cards]


def _same(wanted: str, root: str) -> bool:
    """Both are one folder."""
    return Path(wanted).is_dir() and Path(root).is_dir() and Path(wanted).samefile(root)


def _check_switches(server: VllmServer, command: str) -> None:
    """An empty request is wrong where a route is open, and answered otherwise where it is not."""
    for path, switch in (
        (LOAD, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, and --enable-lora"),
        (GENERATE, "--enable-scale-out (vLLM 0.32 or later)"),
    ):
        try:
            server.post(path, {})
        except ServerRefused as error:
            if error.status in (400, 422):
                continue
            raise EnvironmentLacking(
                f"{server.url}{path}: {error.message} (HTTP {error.status}); the server needs {switch}",
                remedy=f"start it with: {command}",
            ) from error


def serve_command(source: ModelSource, model: ModelSpec, spec: VllmSpec) -> str:
    """The whole command line of a server for this recipe, environment included."""
    config = source.adapter_config or {}
    rank = model.lora.rank if model.lora is not None else int(config.get("r") or 16)
    parts = ["VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "vllm", "serve", shlex.quote(source.base)]
    if source.revision is not None:
        parts += ["--revision", shlex.quote(source.revision)]
    parts += ["--enable-scale-out", "--enable-lora"]
    parts += ["--max-lora-rank", str(next((known for known in _RANKS if known >= rank), rank))]
    parts += ["--dtype", model.quantization.compute_dtype if model.quantization else model.dtype]
    if model.quantization is not None:
        parts += ["--quantization", "bitsandbytes"]
    if model.max_pixels is not None:
        parts += ["--mm-processor-kwargs", shlex.quote(json.dumps({"max_pixels": model.max_pixels}))]
    parts += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    port = spec.url.rpartition(":")[2].partition("/")[0]
    return " ".join([*parts, *(["--port", port] if port.isdigit() else [])])

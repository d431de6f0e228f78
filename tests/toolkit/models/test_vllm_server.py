"""Requests to a server that is slow, gone or wrong, and the command that starts a right one."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec, VllmSpec
from toolkit.errors import EnvironmentLacking
from toolkit.models.sources import ModelSource
from toolkit.models.vllm_server import ServerLost, ServerRefused, VllmServer, connect, serve_command


class Echo(BaseHTTPRequestHandler):
    """Answers with what it got; the path says how."""

    busy = 0  # requests that still get a 503
    seen: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        Echo.seen.append({"path": self.path, "body": body, "key": self.headers.get("Authorization")})
        if self.path == "/slow":
            time.sleep(1.0)
        status = 200
        if Echo.busy > 0:
            Echo.busy, status = Echo.busy - 1, 503
        elif self.path == "/refuse":
            status, body = 400, json.dumps({"error": {"message": "rank 64 is too large", "code": 400}})
        elif self.path == "/words":
            body = "Success: added."
        with contextlib.suppress(OSError):  # whoever asked has gone
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Echo.busy, Echo.seen = 0, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_json_words_and_the_key_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there: pictures do not go through a proxy
    server = VllmServer(url + "/", timeout_seconds=5.0, retry_seconds=0.0)
    assert server.post("/any", {"a": [1]}) == {"a": [1]}
    assert server.post("/words", {}) == "Success: added."
    assert Echo.seen[0] == {"path": "/any", "body": '{"a": [1]}', "key": "Bearer secret"}


def test_a_refusal_is_told_and_not_repeated(url: str) -> None:
    with pytest.raises(ServerRefused, match=r"rank 64 is too large \(HTTP 400\)") as caught:
        VllmServer(url, timeout_seconds=5.0, retry_seconds=5.0).post("/refuse", {})
    assert caught.value.status == 400
    assert len(Echo.seen) == 1


def test_a_busy_server_is_asked_again(url: str) -> None:
    Echo.busy = 1
    assert VllmServer(url, timeout_seconds=5.0, retry_seconds=5.0).post("/any", [1]) == [1]
    assert len(Echo.seen) == 2


@pytest.mark.parametrize("path", ["/any", "/slow"])
def test_a_server_that_does_not_answer_is_lost_in_time(url: str, path: str) -> None:
    Echo.busy = 100 if path == "/any" else 0
    began = time.monotonic()
    with pytest.raises(ServerLost, match=r"Service Unavailable|timed out"):
        VllmServer(url, timeout_seconds=0.1, retry_seconds=0.3).post(path, {})
    assert time.monotonic() - began < 10.0


def test_a_server_of_something_else_is_no_vllm(url: str) -> None:
    with pytest.raises(EnvironmentLacking, match="something else than a list of models"):
        connect(VllmSpec(url=url), ModelSpec(id="some/model"))


def test_the_command_serves_what_the_recipe_trains_on() -> None:
    plain = serve_command(ModelSource("base dir"), ModelSpec(id="x", lora=LoraSpec(rank=9)), VllmSpec())
    assert plain.startswith("VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve 'base dir' --enable-scale-out")
    assert "--max-lora-rank 16 --dtype float32" in plain
    assert plain.endswith("--generation-config vllm --logprobs-mode processed_logprobs --port 8000")
    assert "--quantization" not in plain
    four_bit = ModelSpec(id="x", quantization=QuantizationSpec(compute_dtype="bfloat16"), max_pixels=1000)
    source = ModelSource("org/base", "main", None, {"r": 64})
    command = serve_command(source, four_bit, VllmSpec(url="https://host:81/path"))
    for part in (
        "vllm serve org/base --revision main",
        "--max-lora-rank 64 --dtype bfloat16 --quantization bitsandbytes",
        """--mm-processor-kwargs '{"max_pixels": 1000}'""",
        "--port 81",
    ):
        assert part in command

"""The http term against a real server: scores, null, every kind of failure, retries, token, pictures."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from toolkit.config.schema import RewardTerm
from toolkit.errors import EnvironmentLacking, RecipeError
from toolkit.rewards.base import RewardBatch
from toolkit.rewards.building import build_reward
from toolkit.rewards.service import HttpReward

Batches = Callable[..., RewardBatch]
TEXTS = ["a red circle", "a", "two green crosses there"]


class Service(ThreadingHTTPServer):
    """Scores a completion by its words; ``plan`` holds what the next requests get instead, first to last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.plan: list[Callable[[Handler, dict[str, Any]], None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/score"

    def handle_error(self, *_: Any) -> None:
        """A client that stops waiting breaks the connection: that is tested, not printed."""


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.headers.append(dict(self.headers))
        if self.server.plan:
            self.server.plan.pop(0)(self, request)
        else:
            self.answer({"scores": [len(text.split()) / 2 for text in request["completions"]]})

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def answering(content: Any, status: int = 200, **headers: str) -> Callable[[Handler, dict[str, Any]], None]:
    return lambda handler, _: handler.answer(content, status, **headers)


def reward_of(service: Service, **options: Any) -> HttpReward:
    return HttpReward(**{"url": service.url, "retry_pause_seconds": 0.01, **options})


def test_scores_come_back_in_order_over_several_requests(service: Service, batch_of: Batches) -> None:
    batch = batch_of(TEXTS, tasks=["caption", "vqa", "caption"])
    output = reward_of(service, batch_size=2)(batch)
    assert output.scores.tolist() == [1.5, 0.5, 2.0]
    assert output.applies.all()
    first, second = service.requests
    assert first["completions"] == TEXTS[:2]
    assert second["completions"] == TEXTS[2:]
    assert first["tasks"] == ["caption", "vqa"]
    assert first["sample_ids"] == ["row0", "row1"]
    assert first["references"] == [list(batch.rows[0].references), []]
    assert first["answers"] == [[], list(batch.rows[1].answers)]
    assert first["prompts"][0] == batch.rows[0].prompt
    assert "images" not in first
    assert "Authorization" not in service.headers[0]


def test_null_does_not_apply_and_the_rest_is_failed_row_by_row(
    service: Service, batch_of: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    service.plan = [answering(b'{"scores": [null, NaN, 0, "high", true, 1e999, -2]}')]
    output = reward_of(service)(batch_of(["x"] * 7))
    assert output.applies.tolist() == [False, *[True] * 6]
    assert output.failed.tolist() == [False, True, False, True, True, True, False]
    assert output.scores[[2, 6]].tolist() == [0.0, -2.0]
    assert "a score is 'high', expected a finite number or null" in caplog.text


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({"scores": [1, 2]}, 200, "2 scores came back for 3 completions"),
        ({"score": 1}, 200, "expected {"),
        ([1, 2, 3], 200, "expected {"),
        (b"<html>", 200, "the answer is no JSON: b'<html>'"),
        ({"detail": "no such field"}, 422, 'HTTP 422 Unprocessable Entity: {"detail": "no such field"}'),
    ],
)
def test_a_wrong_answer_fails_its_rows_and_is_told_once(
    service: Service,
    batch_of: Batches,
    caplog: pytest.LogCaptureFixture,
    content: Any,
    status: int,
    reason: str,
) -> None:
    service.plan = [answering(content, status)] * 2
    reward, batch = reward_of(service), batch_of(TEXTS)
    for _ in range(2):
        assert reward(batch).failed.all()
    assert len(service.requests) == 2  # repeating a wrong request would not make it right
    assert sum(reason in record.getMessage() for record in caplog.records) == 1
    assert reward(batch).scores.tolist() == [1.5, 0.5, 2.0]


def test_an_error_that_passes_is_asked_again(service: Service, batch_of: Batches) -> None:
    service.plan = [answering(b"", 500), answering(b"", 503)]
    assert reward_of(service, retries=2)(batch_of(TEXTS)).scores.tolist() == [1.5, 0.5, 2.0]
    assert len(service.requests) == 3


def test_an_error_that_stays_fails_only_the_rows_of_its_request(service: Service, batch_of: Batches) -> None:
    service.plan = [answering(b"", 500), answering(b"", 500)]
    output = reward_of(service, retries=1, batch_size=2)(batch_of(TEXTS))
    assert output.failed.tolist() == [True, True, False]
    assert output.scores[2] == 2.0


def test_a_redirect_is_not_followed(service: Service, batch_of: Batches) -> None:
    service.plan = [answering(b"", 302, Location=service.url)]
    assert reward_of(service)(batch_of(TEXTS)).failed.all()
    assert len(service.requests) == 1


def slow(handler: Handler, request: dict[str, Any]) -> None:
    time.sleep(0.6)
    handler.answer({"scores": [1] * len(request["completions"])})


def dripping(handler: Handler, request: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    for _ in range(6):
        handler.wfile.write(b" ")
        time.sleep(0.1)


@pytest.mark.parametrize("late", [slow, dripping])
def test_an_answer_that_is_late_counts_as_failed(service: Service, batch_of: Batches, late: Any) -> None:
    service.plan = [late]
    began = time.monotonic()
    assert reward_of(service, timeout_seconds=0.2, retries=0)(batch_of(TEXTS)).failed.all()
    assert time.monotonic() - began < 0.55


def test_nobody_there(service: Service, batch_of: Batches, caplog: pytest.LogCaptureFixture) -> None:
    service.server_close()
    assert reward_of(service, retries=1)(batch_of(TEXTS)).failed.all()
    assert "refused" in caplog.text


def test_the_token_comes_from_the_environment(
    service: Service, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "abc")
    reward_of(service, token_env="MY_TOKEN")(batch_of(TEXTS))
    assert service.headers[0]["Authorization"] == "Bearer abc"
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(EnvironmentLacking, match="MY_TOKEN"):
        reward_of(service, token_env="MY_TOKEN")


def test_pictures_are_sent_where_asked_for(service: Service, batch_of: Batches, tmp_path: Any) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG")
    batch = batch_of(["x", "y"])
    batch = replace(batch, rows=[replace(batch.rows[0], images=(file,)), batch.rows[1]])
    reward_of(service, images=True)(batch)
    sent = [[base64.b64decode(image) for image in images] for images in service.requests[0]["images"]]
    assert sent == [[b"\x89PNG"], [b""]]


def test_in_a_composite_a_failure_is_counted_and_never_zero(service: Service, batch_of: Batches) -> None:
    spec = {"term": "http", "options": {"url": service.url, "retries": 0}}
    reward = build_reward([RewardTerm.model_validate(spec)], references={})
    service.plan = [answering({"scores": [None, 3.0, float("nan")]})]
    output = reward(batch_of(TEXTS))
    assert np.isnan(output.scores).tolist() == [True, False, True]
    assert output.applies.tolist() == [False, True, True]
    assert output.failed.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "http needs url"),
        ({"url": "localhost:80"}, "found 'localhost:80'"),
        ({"url": "http://x", "retries": -1}, "retries >= 0"),
        ({"url": "http://x", "timeout": 3}, "unknown timeout"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_reward([RewardTerm(term="http", options=options)], references={})
    assert problem in str(caught.value)

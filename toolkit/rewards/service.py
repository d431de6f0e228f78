"""Scores from a service of the user's: one JSON POST a batch, answered by one score a completion.

Request and answer::

    {"prompts": [conversation], "completions": [text], "sample_ids": [text], "tasks": ["caption" | "vqa"],
     "references": [[text]], "answers": [[text]], "images": [[base64]]}           # images: only where asked for
    {"scores": [number | null]}

``null`` means that the reward does not apply to the row. What goes wrong (nobody answers in time, an error, a
list of another length, something that is no finite number) is a failed score of the rows concerned: NaN, counted
by the run, never 0.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from toolkit.errors import DataError, EnvironmentLacking
from toolkit.records import ImageSource
from toolkit.rewards.base import RewardBatch, RewardOutput

__all__ = ["HttpReward"]

logger = logging.getLogger("vlm_rlhf.rewards.http")

# Answers after which the same request may succeed; any other error says that the request is wrong.
_PASSING = (408, 429, 500, 502, 503, 504)
_CHUNK_BYTES = 1 << 16


class _Malformed(Exception):
    """An answer that holds no scores; the text says what it holds."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: following it would send the token, and turn the POST into a GET."""

    def redirect_request(self, *args: Any) -> None:
        """No request."""


class HttpReward:
    """A service as a reward.

    Args:
        url: where requests are sent, http or https.
        timeout_seconds: for one request, from connecting to the last byte of the answer.
        batch_size: completions in one request.
        retries: how often a request is sent again after a time-out, a lost connection or an error that may pass.
        retry_pause_seconds: before the first repetition; doubled before each further one.
        token_env: name of the environment variable whose value is sent as a bearer token.
        images: send the files of the pictures, base64.

    Raises:
        ValueError: an option out of range.
        EnvironmentLacking: the variable that ``token_env`` names is not set.
    """

    name = "http"
    scale = "as the service answers"
    may_be_constant = False
    background = True

    def __init__(
        self,
        *,
        url: str,
        timeout_seconds: float = 30.0,
        batch_size: int = 64,
        retries: int = 2,
        retry_pause_seconds: float = 0.5,
        token_env: str | None = None,
        images: bool = False,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"http needs a url like http://host:port/path, found {url!r}")
        if timeout_seconds <= 0 or batch_size < 1 or retries < 0 or retry_pause_seconds < 0:
            raise ValueError(
                "http needs timeout_seconds > 0, batch_size >= 1, retries >= 0, retry_pause_seconds >= 0"
            )
        self.url, self.timeout_seconds, self.batch_size = url, timeout_seconds, batch_size
        self.retries, self.retry_pause_seconds, self.images = retries, retry_pause_seconds, images
        self._headers = {"Content-Type": "application/json", **_authorization(token_env)}
        # As towards other services of a run: no proxy sees prompts and pictures.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
        self._told: set[str] = set()

    def __call__(self, batch: RewardBatch) -> RewardOutput:
        """Scores ``(B,)``; null is not applicable, a failure NaN.

        Raises:
            DataError: a picture to send cannot be read.
        """
        values: list[float | None] = []
        for start in range(0, len(batch), self.batch_size):
            values += self._scores(batch.take(range(start, min(start + self.batch_size, len(batch)))))
        applicable = np.asarray([value is not None for value in values], dtype=bool)
        scores = np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
        return RewardOutput(scores, applicable=applicable)

    def _scores(self, part: RewardBatch) -> list[float | None]:
        """One request's scores, all NaN where it failed."""
        request = urllib.request.Request(
            self.url, json.dumps(self._body(part)).encode(), self._headers, method="POST"
        )
        try:
            return [self._number(value) for value in self._answer(request, len(part))]
        except urllib.error.HTTPError as error:
            self._tell(f"HTTP {error.code} {error.reason}: {_beginning(error)}")
        except _Malformed as error:
            self._tell(str(error))
        except (OSError, http.client.HTTPException) as error:
            self._tell(str(getattr(error, "reason", None) or error) or type(error).__name__)
        return [math.nan] * len(part)

    def _body(self, part: RewardBatch) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompts": [list(row.prompt) for row in part.rows],
            "completions": list(part.completions),
            "sample_ids": [row.sample_id for row in part.rows],
            "tasks": [row.task for row in part.rows],
            "references": [list(row.references) for row in part.rows],
            "answers": [list(row.answers) for row in part.rows],
        }
        if self.images:
            body["images"] = [[_base64(image) for image in row.images] for row in part.rows]
        return body

    def _answer(self, request: urllib.request.Request, count: int) -> list[Any]:
        """The ``count`` scores of an answer as they stand in it, asked for again while nothing answers."""
        pause = self.retry_pause_seconds
        for _ in range(self.retries):
            try:
                return _scores_in(self._once(request), count)
            except urllib.error.HTTPError as error:
                if error.code not in _PASSING:
                    raise
                error.close()
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(pause)
            pause *= 2
        return _scores_in(self._once(request), count)

    def _once(self, request: urllib.request.Request) -> bytes:
        deadline = time.monotonic() + self.timeout_seconds
        received: list[bytes] = []
        # The socket's time-out is that of one read; a service that drips bytes is held to the deadline.
        with self._opener.open(request, timeout=self.timeout_seconds) as answer:
            while chunk := answer.read1(_CHUNK_BYTES):
                received.append(chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no complete answer within {self.timeout_seconds:g} seconds")
        return b"".join(received)

    def _number(self, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if math.isfinite(value):
                    return float(value)
            except OverflowError:  # an integer of hundreds of digits
                pass
        self._tell(f"a score is {str(value)[:80]!r}, expected a finite number or null")
        return math.nan

    def _tell(self, reason: str) -> None:
        """Log a failure, each reason once: a service that is down for hours would fill the log."""
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("reward service %s: %s; these rows count as failed", self.url, reason)


def _authorization(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    token = os.environ.get(variable, "").strip()
    if not token:
        raise EnvironmentLacking(
            f"reward term http: token_env names {variable}, which is not set in the environment",
            remedy=f"export {variable}=…, or take token_env out",
        )
    return {"Authorization": f"Bearer {token}"}


def _scores_in(body: bytes, count: int) -> list[Any]:
    """The list of scores in an answer.

    Raises:
        _Malformed: no JSON object with a list ``scores``, or one of another length.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        raise _Malformed(f"the answer is no JSON: {body[:80]!r}") from None
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        raise _Malformed(f'expected {{"scores": […]}}, found {body[:80]!r}')
    if len(scores) != count:
        raise _Malformed(f"{len(scores)} scores came back for {count} completions")
    return scores


def _beginning(error: urllib.error.HTTPError) -> str:
    """The first words of an error's body."""
    with error:
        try:
            return " ".join(error.read(2000).decode("utf-8", errors="replace").split())[:300]
        except (OSError, http.client.HTTPException):
            return ""


def _base64(image: ImageSource) -> str:
    try:
        content = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise DataError(str(image), f"cannot be read: {error.strerror or error}") from error
    return base64.b64encode(content).decode("ascii")

"""How an evaluation decodes: ``greedy``, ``beam:K`` or ``sample:T,n``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.config.schema import DecodingSpec

__all__ = ["Strategy", "sample_ids"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """``beams`` 1 and ``temperature`` 0 is greedy; with a temperature, ``samples`` completions a prompt are drawn."""

    beams: int = 1
    temperature: float = 0.0
    samples: int = 1

    @classmethod
    def of(cls, decoding: DecodingSpec) -> Strategy:
        """What ``decoding.strategy`` says; its form was checked when the specification was made."""
        kind, _, values = decoding.strategy.partition(":")
        if kind == "beam":
            return cls(beams=int(values))
        if kind == "sample":
            temperature, _, samples = values.partition(",")
            return cls(temperature=float(temperature), samples=int(samples or 1))
        return cls()

    def describe(self) -> str:
        """The strategy in words."""
        if self.temperature > 0:
            more = (
                f", {self.samples} samples a prompt, of which the first is scored" if self.samples > 1 else ""
            )
            return f"sampled at temperature {self.temperature:g}{more}"
        return f"beam search with {self.beams} beams" if self.beams > 1 else "greedy"

    def seeds(self, sample_id: str, seed: int) -> list[int]:
        """A seed for each sample of a row: a function of the row's id, whatever is decoded beside it."""
        digests = (
            hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in sample_ids(sample_id, self.samples)
        )
        return [int.from_bytes(digest[:7], "big") for digest in digests]


def sample_ids(sample_id: str, samples: int) -> list[str]:
    """Ids of a row's samples; the first one's is the row's own."""
    return [sample_id, *(f"{sample_id}@sample{number}" for number in range(2, samples + 1))]

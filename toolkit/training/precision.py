"""Guard of parameter dtypes around the construction of a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["keeping_trainable_dtype"]


@contextmanager
def keeping_trainable_dtype(model: Any) -> Iterator[None]:
    """Restore data and dtype of every trainable parameter on leaving.

    TRL casts the trainable parameters of a quantised model to bfloat16 when a trainer is built, which
    rounds an SFT adapter before its first step and breaks the equality of policy and reference. The
    optimizer is made later, so putting the tensors back is enough.
    """
    kept = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
    yield
    for parameter, data in kept:
        if parameter.dtype != data.dtype:
            parameter.data = data

"""Telling memory that ran out from any other failure."""

from __future__ import annotations

__all__ = ["ran_out_of_memory"]


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed: CUDA's own error, or that of torch's CPU allocator."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)

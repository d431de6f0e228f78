"""Named arrays in one file in the safetensors format, read back memory-mapped, so that processes share the pages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from toolkit.errors import DataError

__all__ = ["read_tensors", "write_tensors"]

_TYPES: dict[str, type[np.generic]] = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "I32": np.int32,
    "I64": np.int64,
    "F64": np.float64,
}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}
_MAX_HEADER_BYTES = 100_000_000


def write_tensors(
    path: str | Path, tensors: Mapping[str, npt.NDArray[np.generic]], metadata: Mapping[str, str]
) -> None:
    """Write ``tensors`` and ``metadata`` to ``path``; the file appears whole or not at all."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    # The widest types first, so that every array stays aligned to its own item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in names:
        array = tensors[name]
        offsets = [position, position + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                stream.write(np.ascontiguousarray(tensors[name]).data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
    """The arrays of ``path``, memory-mapped and read-only, and its metadata.

    Raises:
        DataError: the file is missing, truncated, or not a safetensors file.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                raise ValueError("header too long")
            header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        whole = (
            np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length) if header else np.zeros(0, np.uint8)
        )
        tensors = {name: _view(whole, entry) for name, entry in header.items()}
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "build it again with: vlm-rlhf data document-frequencies"
        raise DataError(str(path), "not a complete safetensors file", remedy=remedy) from error
    return tensors, metadata


def _view(whole: npt.NDArray[np.uint8], entry: Mapping[str, object]) -> npt.NDArray[np.generic]:
    first, last = cast("tuple[int, int]", entry["data_offsets"])
    if last > whole.size:
        raise ValueError("truncated")
    # As a plain array: numpy's memmap class makes every later look-up slower.
    plain = whole[first:last].view(np.ndarray).view(_TYPES[str(entry["dtype"])])
    return plain.reshape(entry["shape"])  # type: ignore[call-overload]

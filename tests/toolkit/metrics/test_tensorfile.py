"""Arrays in safetensors files: readable by the library, memory-mapped, refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.metrics import DocumentFrequencies
from toolkit.metrics.tensorfile import read_tensors, write_tensors


def test_round_trip_and_the_library(tmp_path):
    tensors = {"a": np.arange(5, dtype=np.int32), "b": np.ones((2, 3)), "c": np.zeros(0, dtype=np.uint8)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"k": "v"})
    read, metadata = read_tensors(tmp_path / "t.safetensors")
    assert metadata == {"k": "v"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)
        assert not read[name].flags.writeable or not read[name].size
    safetensors = pytest.importorskip("safetensors.numpy")
    theirs = safetensors.load_file(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(theirs["b"], tensors["b"])


def test_damaged_files_are_refused(tmp_path):
    write_tensors(tmp_path / "t.safetensors", {"a": np.arange(100)}, {})
    whole = (tmp_path / "t.safetensors").read_bytes()
    for size in (4, 20, len(whole) - 8):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(DataError, match="complete safetensors"):
            read_tensors(tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match="cannot be read"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="not a table of document frequencies"):
        DocumentFrequencies.load(tmp_path / "t.safetensors")


def test_a_table_of_another_tokenizer_is_refused(tmp_path, monkeypatch):
    table = DocumentFrequencies.from_references({1: ["a dog"]})
    monkeypatch.setattr("toolkit.metrics.frequencies.TOKENIZER", "ptb-3.4.1/0")
    table.save(tmp_path / "df.safetensors")
    monkeypatch.undo()
    with pytest.raises(DataError, match="ptb-3.4.1/0"):
        DocumentFrequencies.load(tmp_path / "df.safetensors")

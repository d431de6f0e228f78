"""The guard against network access works here and in child processes."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

# TEST-NET-1 of RFC 5737: an address that belongs to nobody.
_ELSEWHERE = ("192.0.2.1", 80)


def test_connections_to_other_machines_are_refused() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="refused in tests"):
        client.connect(_ELSEWHERE)


def test_names_are_not_looked_up() -> None:
    with pytest.raises(OSError, match="refused in tests"):
        socket.getaddrinfo("example.invalid", 80)


def test_loopback_stays_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5),
    ):
        connection, _ = server.accept()
        connection.close()


def test_children_are_guarded_too() -> None:
    code = f"import socket; socket.create_connection({_ELSEWHERE!r}, timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode != 0
    assert "network access is refused in tests" in child.stderr

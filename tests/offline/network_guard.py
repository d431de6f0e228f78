"""Refuse connections to other machines, in this process. Loopback and Unix sockets stay open."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


class NetworkRefused(OSError):
    """A test, or a process that it started, tried to reach another machine."""


def _is_local(host: object) -> bool:
    if host is None or host in ("", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        raise NetworkRefused(f"network access is refused in tests: {address!r}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _refuse(self.family, address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _refuse(self.family, address)
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    if not _is_local(host):
        raise NetworkRefused(f"network access is refused in tests: name {host!r}")
    return _getaddrinfo(host, *args, **kwargs)


def install() -> None:
    """Refuse from now on."""
    socket.socket.connect = _guarded_connect
    socket.socket.connect_ex = _guarded_connect_ex
    socket.getaddrinfo = _guarded_getaddrinfo


def remove() -> None:
    """Allow again."""
    socket.socket.connect = _connect
    socket.socket.connect_ex = _connect_ex
    socket.getaddrinfo = _getaddrinfo

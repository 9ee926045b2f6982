"""A TCP connection to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

A machine whose IPv6 leads nowhere would otherwise wait for a timeout before each connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Any

from .lines import Lines
from .naming import Address

__all__ = ["connect"]

_HEAD_START = 0.25
_LOOK = 0.1
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


def connect(addresses: Sequence[Address], timeout: float, lines: Lines) -> socket.socket:
    """A connected socket, with `timeout` for what follows. Each address has a head start of 250 ms before the next.

    Raises TimeoutError when none answered in time, the last OSError when none can be reached, and
    ConnectionAbortedError when all is over.
    """
    ends = time.monotonic() + timeout
    todo, problem = list(addresses), OSError("there is no address")
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        next_at = 0.0
        while todo or selector.get_map():
            lines.check()
            now = time.monotonic()
            if now >= ends:
                raise TimeoutError("no connection in time")
            if todo and (now >= next_at or not selector.get_map()):
                next_at = now + _HEAD_START
                try:
                    tried = stack.enter_context(_begin(*todo.pop(0)))
                except OSError as error:
                    problem = error
                    continue
                selector.register(tried, selectors.EVENT_WRITE)
            for key, _ in selector.select(min(_LOOK, max(0.0, ends - now))):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                selector.unregister(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return _chosen(sock, timeout)
                problem = OSError(code, os.strerror(code))
    raise problem


def _begin(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code not in _UNDER_WAY:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _chosen(sock: socket.socket, timeout: float) -> socket.socket:
    """The socket itself stays open when the others are closed: it changes hands."""
    chosen = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    chosen.settimeout(timeout)
    return chosen

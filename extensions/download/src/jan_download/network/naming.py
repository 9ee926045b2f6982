"""Name lookups that can be given up. The system's own cannot: it may hang for minutes, in a thread nobody waits for."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Any

from .lines import Lines

__all__ = ["Address", "Names"]

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and an address of it, as `socket.connect` takes it."""
_LOOK = 0.05


class _Lookup:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: list[Address] = []
        self.error: OSError | None = None


class Names:
    """The lookups of one run; connections that need the same name share one. `known`: some name was found."""

    def __init__(self, lines: Lines) -> None:
        self.known = False
        self._lines = lines
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], _Lookup] = {}

    def addresses(self, host: str, port: int, timeout: float) -> list[Address]:
        """Where `host` is, in the order in which it should be tried: the families take turns (RFC 8305).

        Raises socket.gaierror when there is no such name, TimeoutError, and ConnectionAbortedError when all is over.
        """
        host = host.strip("[]")
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            pass
        else:
            return _ordered(host, port, socket.AI_NUMERICHOST)
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is None:
                lookup = self._under_way[host, port] = _Lookup()
                threading.Thread(target=self._look_up, args=(host, port, lookup), name="lookup", daemon=True).start()
        ends = time.monotonic() + timeout
        while not lookup.done.wait(_LOOK):
            self._lines.check()
            if time.monotonic() > ends:
                raise TimeoutError("the name lookup takes too long")
        if lookup.error is not None:
            raise type(lookup.error)(*lookup.error.args)
        return lookup.found

    def _look_up(self, host: str, port: int, lookup: _Lookup) -> None:
        try:
            lookup.found = _ordered(host, port, 0)
            self.known = True
        except OSError as error:
            lookup.error = error
        except UnicodeError as error:  # a label that is empty or too long
            lookup.error = socket.gaierror(socket.EAI_NONAME, str(error))
        finally:
            with self._lock:
                del self._under_way[host, port]
            lookup.done.set()


def _ordered(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)
    rows: list[Address] = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    leading = [row for row in rows if row[0] == rows[0][0]]
    others = [row for row in rows if row[0] != rows[0][0]]
    mixed: list[Address] = []
    while leading or others:
        mixed += leading[:1] + others[:1]
        leading, others = leading[1:], others[1:]
    return mixed

"""urllib3's connections and pools, with three things added: any thread can end them at any point, name lookup and head
have a time limit of their own, and a kept connection that the server had closed is told from one that breaks.

Imports urllib3: to be imported when the first connection is made.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from urllib3 import HTTPResponse, PoolManager, ProxyManager, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from .lines import Line, Lines, deadline
from .naming import Address, Names
from .proxies import Proxy
from .racing import connect

__all__ = ["KEPT", "Stale", "pools"]


KEPT = 32
"""Connections of one host, and hosts with connections, that are kept for further requests."""


@dataclass(frozen=True)
class _Reach:
    """How the connections of one run are made."""

    lines: Lines
    names: Names
    socks: Proxy | None


class Stale(ConnectionResetError):
    """A connection that was kept from an earlier request turned out to be closed: another one will do."""


class _Connection(HTTPConnection):
    """A connection of one run."""

    def __init__(self, *args: Any, reach: _Reach, **options: Any) -> None:
        super().__init__(*args, **options)
        self.line: Line | None = None
        self._reach = reach
        self._served = 0
        self._answering = False

    def connect(self) -> None:
        self._drop()
        self._served = 0
        self._reach.lines.check()
        with deadline(self._seconds) as self._until:
            super().connect()

    def request(self, *args: Any, **options: Any) -> None:
        with self._told_if_stale():
            super().request(*args, **options)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        # http.client closes the connection below a response that ends with it; the line lives as long as the body.
        self._answering = True
        try:
            with self._told_if_stale(), deadline(self._seconds) as until:
                until.watch(self.line)
                response = super().getresponse()
        finally:
            self._answering = False
        self._served += 1
        return response

    @contextlib.contextmanager
    def _told_if_stale(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            if self._served and not self._reach.lines.closed.is_set():
                raise Stale from error
            raise

    def close(self) -> None:
        super().close()
        if not self._answering:
            self._drop()

    def _drop(self) -> None:
        if self.line is not None:
            line, self.line = self.line, None
            self._reach.lines.drop(line)

    @property
    def _seconds(self) -> float:
        assert isinstance(self.timeout, int | float)
        return float(self.timeout)

    def _new_conn(self) -> socket.socket:
        proxy, reach = self._reach.socks, self._reach
        where, port = (proxy.host, proxy.port) if proxy else (self._dns_host, self.port)
        try:
            addresses = reach.names.addresses(where, port, self._seconds)
            if proxy:
                return self._through(proxy, addresses)
            return self._held(connect(addresses, self._seconds, reach.lines))
        except socket.gaierror as error:
            raise NameResolutionError(where, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error

    def _held(self, sock: socket.socket) -> socket.socket:
        try:
            self.line = self._reach.lines.hold(sock)
            self._until.watch(self.line)
        except BaseException:
            sock.close()
            raise
        return sock

    def _through(self, proxy: Proxy, addresses: list[Address]) -> socket.socket:
        """A connection that the proxy at one of these addresses made."""
        import socks  # type: ignore[import-untyped]

        target = self.host
        remote = proxy.kind[-1] in "ha"
        if not remote:
            known = self._reach.names.addresses(self._dns_host, self.port, self._seconds)
            target = str(next((a for f, a in known if f == socket.AF_INET), known[0][1])[0])
        version = socks.SOCKS5 if proxy.kind.startswith("socks5") else socks.SOCKS4
        problem = OSError("there is no address")
        for family, address in addresses:
            sock = socks.socksocket(family)
            sock.set_proxy(version, address[0], address[1], remote, proxy.name or None, proxy.password or None)
            sock.settimeout(self._seconds)
            self._held(sock)
            try:
                sock.connect((target, self.port))
            except (OSError, UnicodeError) as error:  # the latter for a label that is empty or too long
                problem = error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, str(error))
                sock.close()
                self._drop()
            else:
                found: socket.socket = sock
                return found
        raise problem


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    """The connections of one host that are kept."""

    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        # Closed, but with its line, is one that its server ended with a body. From here on it may be another thread's.
        if conn is not None and conn.is_closed:
            conn.close()
        super()._put_conn(conn)


class _TLSPool(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TLSConnection


class _Pools(PoolManager):
    """Pools whose connections are those above."""

    reach: _Reach

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw["reach"] = self.reach
        return pool


class _Through(_Pools, ProxyManager):
    """The same through an HTTP proxy."""


def pools(lines: Lines, names: Names, proxy: Proxy | None, context: ssl.SSLContext | None) -> PoolManager:
    """Connections of one run, through a proxy or not; `context` is for those that are encrypted.

    To HTTP, a SOCKS proxy is none: only the making of connections differs.
    """
    # What urllib3 notes of requests, and of heads it cannot read, has whole addresses in it, and those may be secrets.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    options: dict[str, Any] = {"num_pools": KEPT, "maxsize": KEPT, "ssl_context": context}
    made: _Pools
    if proxy is not None and proxy.kind in ("http", "https"):
        login = f"{proxy.name}:{proxy.password}" if proxy.name or proxy.password else None
        headers = make_headers(proxy_basic_auth=login)
        made = _Through(proxy.url, proxy_headers=headers, proxy_ssl_context=context, **options)
        made.reach = _Reach(lines, names, None)
    else:
        made = _Pools(**options)
        made.reach = _Reach(lines, names, proxy)
    made.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return made

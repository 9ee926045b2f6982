"""Asks a server over HTTP(S): which addresses may be asked, redirects, proxies, and what went wrong in one word.

Needs urllib3 only when something is asked: `fetch.py`, a script, makes it importable. It knows nothing of the files
that the answers are for.
"""

from __future__ import annotations

import contextlib
import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["Failed", "Translated", "ask", "host_of", "may_ask"]

_HOPS = 10


class Failed(Exception):
    """`again`: the same request may do better."""

    def __init__(self, reason: str, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.reason, self.again = reason, again


def may_ask(url: str) -> bool:
    """Whether this address may be asked: over TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)))


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def ask(url: str, headers: dict[str, str], *, connect: float, stall: float) -> tuple[BaseHTTPResponse, str]:
    """The answer to read, and the address it came from: redirects are followed by hand, as each has to be allowed.

    `connect`, `stall`: seconds to wait for the connection, and for each next byte. Raises Failed.
    """
    import urllib3

    first = url
    timeout = urllib3.Timeout(connect=connect, read=stall)
    for _ in range(_HOPS):
        if not may_ask(url):
            raise Failed("refused", f"{host_of(url)}: only https, or http on this machine, is asked")
        with Translated(url):
            response: BaseHTTPResponse = _pool(url).request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False, timeout=timeout
            )
        if target := response.get_redirect_location():
            response.close()
            safe, url = url.startswith("https:"), urljoin(url, target)
            if safe and not url.startswith("https:"):
                raise Failed("refused", f"{host_of(first)} leads from https to {host_of(url)} without")
            continue
        if response.status in (200, 206, 416):
            return response, url
        response.close()
        _refuse(url, response.status)
    raise Failed("server", f"{host_of(first)} redirects without end")


def _refuse(url: str, status: int) -> None:
    phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else ""
    said = f"{host_of(url)} answered {status} {phrase}".rstrip()
    if status in (404, 410):
        raise Failed("not_found", said)
    raise Failed("server", said, again=status >= 500 or status in (408, 429))


def _pool(url: str) -> Any:
    import urllib.request

    import urllib3

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or _is_this_machine(host) or urllib.request.proxy_bypass(host):
        return urllib3.PoolManager()
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in ("http", "https"):
        raise Failed("network", f"proxies of the kind {parts.scheme}:// are not supported, only http:// and https://")
    login = f"{parts.username}:{parts.password or ''}" if parts.username else None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(bare, proxy_headers=urllib3.make_headers(proxy_basic_auth=login))


def host_of(url: str) -> str:
    """For messages: an address may hold secrets."""
    try:
        return urlsplit(url).hostname or "the server"
    except ValueError:
        return "the server"


class Translated:
    """Turns what urllib3 and the socket raise into Failed."""

    def __init__(self, url: str) -> None:
        self._host = host_of(url)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import urllib3.exceptions as u

        if isinstance(error, u.ReadTimeoutError | TimeoutError):
            raise Failed("slow", f"{self._host} stopped sending", again=True) from error
        if isinstance(error, u.SSLError):
            raise Failed("network", f"no safe connection to {self._host}: {error}") from error
        if isinstance(error, u.NewConnectionError | u.ConnectTimeoutError | u.ProxyError | u.LocationValueError):
            raise Failed("network", f"no connection to {self._host}") from error
        if isinstance(error, u.ProtocolError | ConnectionError):
            raise Failed("truncated", f"{self._host} ended the connection too early", again=True) from error
        if isinstance(error, u.HTTPError):
            raise Failed("network", f"{self._host}: {error}") from error

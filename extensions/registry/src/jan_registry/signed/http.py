"""A hub behind HTTP(S): the host's shared client, bounded in bytes and in time, redirects followed by hand.

It believes nothing and reads nothing of what comes: that is for those who know what was signed.
"""

from __future__ import annotations

import concurrent.futures
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import anyio
import anyio.from_thread

from .fetching import NotThere, TooLarge, Unreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpFetch"]

MIN_RATE = 16 * 1024
"""Bytes a second on average, once `timeout` has passed: a server that trickles holds nobody for long."""
_MAX_REDIRECTS = 5
_MAX_WAIT = 24 * 3600.0
_MAX_ERROR_BODY = 16 * 1024
_ENVELOPE = 1024
"""How much larger a body may be on the wire than what it holds: what gzip adds to what it cannot compress."""


class HttpFetch:
    """Gets files below `url` with what `client` returns, for a thread of its event loop's (`anyio.to_thread`).

    `timeout`: seconds for one file, redirects included; a file that needs longer must come at `MIN_RATE` or faster.
    When the task that waits for the thread is cancelled, a request under way ends as Unreachable.
    """

    def __init__(self, client: Callable[[], httpx.AsyncClient], url: str, *, timeout: float = 30.0) -> None:
        self._client, self._base, self._timeout = client, url.rstrip("/") + "/", timeout
        self.requests = self.received = 0
        self.backoff = 0.0

    def __call__(self, path: str, limit: int, *, rare: bool = False) -> bytes:
        import httpx  # noqa: F401  (in this thread: it takes long, and the event loop must not wait for it)

        try:
            return anyio.from_thread.run(self._get, path, limit, rare)
        except (concurrent.futures.CancelledError, anyio.RunFinishedError):
            raise Unreachable("the request was stopped") from None

    async def _get(self, path: str, limit: int, rare: bool) -> bytes:
        import httpx

        host = _host(self._base)
        try:
            with anyio.fail_after(self._timeout) as scope:
                if rare:  # a server's page about what is not there can be larger than all the rest
                    await self._ask("HEAD", path, limit, scope)
                return await self._ask("GET", path, limit, scope)
        except TimeoutError:
            raise Unreachable(f"{host} did not send {path} in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, OverflowError, RuntimeError) as error:
            # RuntimeError: a stream's errors are such, and that of a host that is offline or shuts down.
            raise Unreachable(f"{host}: {str(error) or type(error).__name__}") from error

    async def _ask(self, method: str, path: str, limit: int, scope: anyio.CancelScope) -> bytes:
        client, url = self._client(), self._base + path
        for _ in range(_MAX_REDIRECTS + 1):
            self.requests += 1
            async with client.stream(
                method, url, headers={"Accept-Encoding": "gzip"}, follow_redirects=False, timeout=self._timeout
            ) as response:
                if response.status_code not in (301, 302, 303, 307, 308):
                    return await self._read(response, path, limit, scope)
                url = _redirect(url, response.headers.get("Location", ""))
        raise Unreachable(f"{_host(self._base)} redirects more than {_MAX_REDIRECTS} times")

    async def _read(self, response: httpx.Response, path: str, limit: int, scope: anyio.CancelScope) -> bytes:
        status, headers, host = response.status_code, response.headers, response.url.host
        if response.request.method == "HEAD" and status not in (404, 410, 429, 503):
            return b""  # it is there, or the server does not know the question
        wait = max(_seconds(headers.get("Backoff", "")), _seconds(headers.get("Retry-After", "")))
        if status != 200:
            await self._drain(response)
            message = f"{host} answered {status} {response.reason_phrase}".rstrip() + f" to {path}"
            kind = NotThere if status in (403, 404, 410) else Unreachable
            raise kind(message, status=status, retry_after=wait)
        self.backoff = max(self.backoff, wait)
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", ""):
            raise Unreachable(f"{host} sends {path} encoded as {encoding}; only gzip was asked for", status=status)
        # Some servers say of a .gz file that gzip is how it is sent. Its reader inflates it, and knows its limits.
        inflate = zlib.decompressobj(wbits=31) if "gzip" in encoding and not path.endswith(".gz") else None
        body, received, deadline = bytearray(), 0, scope.deadline
        async for chunk in response.aiter_raw():
            received += len(chunk)
            self.received += len(chunk)
            scope.deadline = deadline + received / MIN_RATE
            try:
                body += chunk if inflate is None else inflate.decompress(chunk, limit + 1 - len(body))
            except zlib.error as error:
                raise Unreachable(f"{host}: {path}: {error}", status=status) from None
            if len(body) > limit or received > limit + _ENVELOPE:
                raise TooLarge(f"{host} sends more than {limit} bytes of {path}")
        if inflate is not None and not inflate.eof:
            raise Unreachable(f"{host}: {path} ended too early", status=status)
        return bytes(body)

    async def _drain(self, response: httpx.Response) -> None:
        """Read what an error says, so that the connection can be used again; not if it has no end."""
        received = 0
        async for chunk in response.aiter_raw():
            received += len(chunk)
            self.received += len(chunk)
            if received > _MAX_ERROR_BODY:
                return


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except (ValueError, OverflowError) as error:
        raise Unreachable(f"{url} is not an address: {error}") from None
    return parts.hostname or "the hub"


def _redirect(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        scheme, host, _ = urlsplit(target).scheme, urlsplit(target).hostname, urlsplit(target).port
    except ValueError:
        scheme, host, target = "", None, location
    if not location or scheme not in ("http", "https") or not host:
        raise Unreachable(f"{_host(url)} redirects to an address that cannot be used")
    if url.startswith("https:") and scheme != "https":
        raise Unreachable(f"{_host(url)} redirects from https to plain http, which is refused")
    return target


def _seconds(value: str) -> float:
    """A header's time to wait, in seconds or as a date; 0 for none, at most a day."""
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MAX_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time()), _MAX_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0

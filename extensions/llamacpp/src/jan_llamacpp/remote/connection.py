"""The connection of one request to an endpoint: TLS, time limits, and every way of failing as a typed error.

A connection lives as long as its request and no longer: nothing stays open to a host after it answered, and a
cancelled answer ends the connection with it. That costs a handshake for each request, and spares everybody the question
which key, policy or certificate an idle one was made under.

No redirect is followed, no proxy, key or certificate is taken from the environment, no cookie is kept.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from jan_core import InvalidParams, JanError

from .errors import (
    RemoteAnswerInvalid,
    RemoteAuthFailed,
    RemoteBusy,
    RemoteFailed,
    RemoteInterrupted,
    RemoteModelNotFound,
    RemoteRefused,
    RemoteUnreachable,
)
from .remote import Remote
from .wire import error_text

if TYPE_CHECKING:
    import httpx

__all__ = ["Connection", "connect"]

LARGEST_ERROR = 64 << 10
"""Bytes read of a body that says what went wrong."""
LARGEST_BODY = 16 << 20
"""Bytes of a whole answer that is not streamed, or of a list of models."""
LARGEST_STREAM = 256 << 20
"""Bytes of a streamed one: each token comes in some 200."""


_BROKEN = {
    "connect": "cannot be reached",
    "lost": "ended the connection without an answer",
    "tls": "cannot be reached in a way that is to be trusted",
}


class Connection:
    """Asks one endpoint, with its key. Made by `connect`."""

    def __init__(self, client: httpx.AsyncClient, remote: Remote, key: str | None) -> None:
        self._client = client
        self._remote = remote
        self._key = key

    async def send(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """One attempt: the response with its body still to be read, of status 200 and no web page.

        Raises the errors of this package.
        """
        address = self._remote.address
        for host in address.hosts:
            try:
                return await self._send(method, path, body, host)
            except RemoteUnreachable as error:
                if host == address.hosts[-1] or error.data["reason"] != "connect":
                    raise
        raise AssertionError("an address has a host")

    async def chunks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The bytes of a stream as they come. Raises RemoteInterrupted and RemoteAnswerInvalid."""
        size, limit = 0, self._remote.first_byte_seconds
        async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as pieces:
            while True:
                try:
                    with anyio.fail_after(limit):
                        piece = await anext(pieces, None)
                except TimeoutError:
                    raise self._error(RemoteInterrupted, f"sent nothing for {limit:g} s", reason="idle") from None
                except self._broken() as error:
                    what = f"broke its answer off: {self._why(error)}"
                    raise self._error(RemoteInterrupted, what, reason="truncated") from None
                if piece is None:
                    return
                size += len(piece)
                if size > LARGEST_STREAM:
                    raise self._error(RemoteAnswerInvalid, f"sent more than {LARGEST_STREAM:,} bytes", reason="limit")
                limit = self._remote.idle_seconds
                yield piece

    async def whole(self, response: httpx.Response) -> bytes:
        """A body that is not streamed. Raises as `chunks`."""
        body = bytearray()
        async with aclosing(self.chunks(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > LARGEST_BODY:
                    raise self._error(RemoteAnswerInvalid, f"sent more than {LARGEST_BODY:,} bytes", reason="limit")
        return bytes(body)

    async def _send(self, method: str, path: str, body: bytes | None, host: str) -> httpx.Response:
        import httpx

        remote = self._remote
        headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        url = httpx.URL(remote.base_url.rstrip("/") + path)
        headers["Host"] = url.netloc.decode("ascii")
        request = self._client.build_request(
            method,
            url.copy_with(host=host),
            headers=headers,
            content=body,
            extensions={"sni_hostname": remote.address.host},
        )
        try:
            with anyio.fail_after(remote.connect_seconds + remote.first_byte_seconds):
                response = await self._client.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException) as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            what = f"could not be reached in {remote.connect_seconds:g} s" if connecting else "did not answer in time"
            reason = "connect" if connecting else "timeout"
            raise self._error(RemoteUnreachable, what, reason=reason) from None
        except self._broken() as error:
            reason = _reason(error)
            raise self._error(RemoteUnreachable, f"{_BROKEN[reason]}: {self._why(error)}", reason=reason) from None
        try:
            await self._check(response)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            raise
        return response

    async def _check(self, response: httpx.Response) -> None:
        status, kind = response.status_code, response.headers.get("Content-Type", "").lower()
        if 300 <= status < 400:
            what = "redirects to another address, which is never followed: the key would go along"
            raise self._error(RemoteAnswerInvalid, what, reason="redirect", status=status)
        if status >= 400 and status != 511:
            said = await self._said(response)
            raise self._refusal(status, said, _retry_after(response.headers.get("Retry-After", "")))
        if status == 511 or "html" in kind:  # RFC 6585, 6: the network wants a login
            what = "answered with a web page: does this network want a login, or is the address that of a website?"
            raise self._error(RemoteAnswerInvalid, what, reason="web_page", status=status)
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise self._error(RemoteAnswerInvalid, "compresses its answer, unasked", reason="encoding")
        if status != 200:
            raise self._error(RemoteAnswerInvalid, f"answered {status}", reason="malformed", status=status)

    def _refusal(self, status: int, said: str, retry_after: float | None) -> JanError:
        words = f": {said}" if said else ""
        if status in (401, 403):
            what = "does not accept the key" if self._key else "wants a key"
            return self._error(RemoteAuthFailed, f"{what}{words}", status=status)
        if status == 404:
            return self._error(RemoteModelNotFound, f"knows no such model, or no such path{words}", status=status)
        if status in (429, 503):
            more = {} if retry_after is None else {"retry_after": retry_after}
            return self._error(RemoteBusy, f"takes no requests now{words}", status=status, **more)
        if status < 500:
            return self._error(RemoteRefused, f"refuses the request ({status}){words}", status=status)
        return self._error(RemoteFailed, f"failed ({status}){words}", status=status)

    async def _said(self, response: httpx.Response) -> str:
        """What a refusal's body says, as far as it comes soon and is no web page."""
        body = bytearray()
        try:
            with anyio.fail_after(min(5.0, self._remote.idle_seconds)):
                async for piece in response.aiter_raw():
                    body += piece[: LARGEST_ERROR - len(body)]
                    if len(body) >= LARGEST_ERROR:
                        break
        except TimeoutError:
            pass  # the status says enough
        except self._broken():
            pass
        return error_text(bytes(body), self._key)

    def _why(self, error: BaseException) -> str:
        """An error's text without the key: a library may quote what it could not send."""
        return _why(error).replace(self._key, "(the key)") if self._key else _why(error)

    def _error(self, kind: type[JanError], what: str, **data: object) -> JanError:
        return kind(f"{self._remote.id} {what}", remote=self._remote.id, **data)

    @staticmethod
    def _broken() -> tuple[type[Exception], ...]:
        import httpx

        return httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ssl.SSLError


@asynccontextmanager
async def connect(remote: Remote, key: str | None) -> AsyncIterator[Connection]:
    """What asks a remote. Nothing is sent before the first request. Raises InvalidParams for a CA file that is none."""
    client = await anyio.to_thread.run_sync(partial(_client, remote))
    try:
        yield Connection(client, remote, key)
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()


def _client(remote: Remote) -> httpx.AsyncClient:
    """In a thread: the first import and the certificates take some 200 ms."""
    import httpx

    try:
        if not remote.ca_file:
            context = httpx.create_ssl_context(trust_env=False)
        elif Path(remote.ca_file).is_absolute():
            context = ssl.create_default_context(cafile=remote.ca_file)
        else:
            raise OSError("its path is not absolute")
    except OSError as error:  # ssl.SSLError is one
        raise InvalidParams(f"{remote.id}: the CA file cannot be used: {_why(error)}", path="$.ca_file") from None
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, proxy=remote.proxy or None)
    # Reads are bounded where they are made: the first may take longer than the others.
    timeout = httpx.Timeout(remote.idle_seconds, connect=remote.connect_seconds, read=None)
    return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False, headers={"User-Agent": "jan"})


def _reason(error: Exception) -> str:
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls"
        cause = cause.__cause__ or cause.__context__
    return "connect" if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.InvalidURL) else "lost"


def _why(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _retry_after(value: str) -> float | None:
    """Seconds that a Retry-After names, as a number or a date (RFC 9110, 10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None

"""Fetching a list over HTTP(S): conditional, bounded in size and time, redirects followed by hand. It reads nothing
of it."""

from __future__ import annotations

import zlib
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import anyio
from msgspec import Struct

from .document import MAX_BYTES
from .errors import RegistryInvalid, RegistryUnreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetched", "fetch"]

_MAX_REDIRECTS = 5
_MAX_WAIT = 24 * 3600.0


class Fetched(Struct):
    """What a source answered. `body` is None when the list has not changed (304)."""

    body: bytes | None
    etag: str = ""
    last_modified: str = ""


async def fetch(
    client: httpx.AsyncClient, url: str, *, etag: str = "", last_modified: str = "", timeout: float = 30.0
) -> Fetched:
    """GET a list, if it changed since `etag` or `last_modified`.

    Raises RegistryUnreachable (its `retry_after` in seconds where the server named one) or RegistryInvalid.
    """
    import httpx

    headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
    if etag:
        headers["If-None-Match"] = etag
    elif last_modified:
        headers["If-Modified-Since"] = last_modified
    host = _host(url)
    try:
        with anyio.fail_after(timeout):
            for _ in range(_MAX_REDIRECTS + 1):
                async with client.stream(
                    "GET", url, headers=headers, follow_redirects=False, timeout=timeout
                ) as response:
                    if response.status_code not in (301, 302, 303, 307, 308):
                        return await _read(response, host)
                    url = _redirect(url, response.headers.get("Location", ""))
    except TimeoutError:
        raise RegistryUnreachable(f"{host} did not answer within {timeout:g} s", host=host) from None
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
        raise RegistryUnreachable(f"{host}: {str(error) or type(error).__name__}", host=host) from error
    except (ValueError, OverflowError) as error:  # an address that only shows to be none when it is used
        raise RegistryInvalid(f"{host}: {error}", host=host) from error
    raise RegistryInvalid(f"{host} redirects more than {_MAX_REDIRECTS} times", host=host)


def _host(url: str) -> str:
    """Who is asked, for messages. Raises RegistryInvalid for an address that nobody can have."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except (ValueError, OverflowError) as error:
        raise RegistryInvalid(f"{url} is not an address: {error}") from None
    return parts.hostname or "the source"


async def _read(response: httpx.Response, host: str) -> Fetched:
    status = response.status_code
    if status == 304:
        return Fetched(None)
    if status != 200:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        raise RegistryUnreachable(
            f"{host} answered {status} {response.reason_phrase}".rstrip(), host=host, status=status, retry_after=wait
        )
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise RegistryInvalid(f"{host} sends the list encoded as {encoding}; only gzip was asked for", host=host)
    inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        # Inflated here and not by the client: a small answer could otherwise become gigabytes in one step.
        while chunk and len(body) <= MAX_BYTES:
            if inflate is None:
                body += chunk
                break
            try:
                body += inflate.decompress(chunk, MAX_BYTES + 1 - len(body))
            except zlib.error as error:
                raise RegistryInvalid(f"{host}: {error}", host=host) from None
            chunk = inflate.unconsumed_tail
        if len(body) > MAX_BYTES:
            raise RegistryInvalid(f"{host} sends more than {MAX_BYTES} bytes", host=host)
    if inflate is not None and not inflate.eof:
        raise RegistryUnreachable(f"{host}: the answer ended too early", host=host)
    return Fetched(bytes(body), response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))


def _redirect(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        scheme, host, _ = urlsplit(target).scheme, urlsplit(target).hostname, urlsplit(target).port
    except ValueError:
        scheme, host, target = "", None, location
    if not location or scheme not in ("http", "https") or not host:
        raise RegistryInvalid(f"{urlsplit(url).hostname} redirects to an address that cannot be used")
    if url.startswith("https:") and scheme != "https":
        raise RegistryInvalid(f"{urlsplit(url).hostname} redirects from https to plain http, which is refused")
    return target


def _retry_after(value: str) -> float:
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MAX_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time()), _MAX_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0

"""One GET, bounded in size, time and redirects. It keeps nothing and judges no status.

A token goes to its own origin only, and never beyond a redirect that leaves it. Cookies are neither sent nor heeded:
what was answered to one token must not open the door for a request without it.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import anyio

from .errors import HubInvalid, HubRefused, HubUnreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Admit", "Response", "Token", "host_of", "origin_of", "transfer"]

Admit = Callable[[str], Awaitable[str]]
"""Gets an address before the network is used for it; answers why it must not be, or ""."""

_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Token:
    """A secret, and the address whose origin (scheme, host and port) may see it. Never printed.

    `public`: everybody is given one, and what it opens is the same for all.
    """

    value: str = field(repr=False)
    url: str
    public: bool = False

    def fits(self, url: str) -> bool:
        return origin_of(url) == origin_of(self.url)


@dataclass(frozen=True, slots=True)
class Response:
    """What came. `headers` by lower-case name; `body` is decompressed."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


async def transfer(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str],
    token: Token | None,
    limit: int,
    timeout: float,
    admit: Admit,
) -> Response:
    """GET `url` and follow its redirects.

    `admit` is asked before each hop. `limit` in bytes, of what is sent and of what it becomes.

    Raises HubUnreachable, HubRefused (`offline`) or HubInvalid.
    """
    import httpx

    start = host_of(url)
    try:
        with anyio.fail_after(timeout):
            for _ in range(_MAX_REDIRECTS + 1):
                if why := await admit(url):
                    raise HubRefused(f"{host_of(url)} is not asked: {why}", reason="offline", host=host_of(url))
                if token is not None and not token.fits(url):
                    token = None  # nor is it shown to an origin that sends us back
                request = client.build_request("GET", url, headers=dict(headers), timeout=timeout)
                request.headers.pop("Cookie", None)
                if token is not None:
                    request.headers["Authorization"] = f"Bearer {token.value}"
                response = await client.send(request, stream=True, auth=None, follow_redirects=False)
                try:
                    if response.status_code not in (301, 302, 303, 307, 308):
                        return await _read(response, host_of(url), limit)
                    url = _redirect(url, response.headers.get("Location", ""))
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
    except TimeoutError:
        raise HubUnreachable(f"{start} did not answer within {timeout:g} s", host=start) from None
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
        # The error's own text may name an address with a query in it; its type says enough.
        raise HubUnreachable(f"{start} cannot be reached ({type(error).__name__})", host=start) from None
    except (ValueError, OverflowError) as error:  # an address that only shows to be none when it is used
        raise HubInvalid(f"{start}: not an address ({type(error).__name__})", host=start) from None
    raise HubInvalid(f"{start} redirects more than {_MAX_REDIRECTS} times", host=start)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454). Raises HubInvalid for what is no address of HTTP."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        good = scheme in _PORTS and host and parts.username is None and url.isascii() and url.isprintable()
    except (ValueError, OverflowError):
        good = False
    if not good or " " in url:
        raise HubInvalid("that is not an address of http or https")
    return scheme, host, port if port is not None else _PORTS[scheme]


def host_of(url: str) -> str:
    """Who is asked, for messages. Raises HubInvalid for what is no address of HTTP."""
    return origin_of(url)[1]


def _redirect(url: str, location: str) -> str:
    host = host_of(url)
    try:
        target = urljoin(url, location)
        scheme = origin_of(target)[0]
    except (ValueError, HubInvalid):
        scheme = ""
    if not location or not scheme:
        raise HubInvalid(f"{host} redirects to an address that cannot be used", host=host)
    if url.lower().startswith("https:") and scheme != "https":
        raise HubInvalid(f"{host} redirects from https to plain http, which is refused", host=host)
    return target


async def _read(response: httpx.Response, host: str, limit: int) -> Response:
    too_large = HubInvalid(f"{host} sends more than {limit} bytes", host=host)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise HubInvalid(f"{host} answers in the encoding {encoding[:20]!r}; only gzip was asked for", host=host)
    inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    body, sent = bytearray(), 0
    async for chunk in response.aiter_raw():
        sent += len(chunk)
        # Inflated here and not by the client: a small answer could otherwise become gigabytes in one step.
        while chunk and len(body) <= limit:
            if inflate is None:
                body += chunk
                break
            try:
                body += inflate.decompress(chunk, limit + 1 - len(body))
            except zlib.error:
                raise HubInvalid(f"{host}: the answer is not gzip, as it says", host=host) from None
            chunk = inflate.unconsumed_tail
        if max(len(body), sent) > limit:
            raise too_large
    if inflate is not None and sent and not inflate.eof:
        raise HubUnreachable(f"{host}: the answer ended too early", host=host, status=response.status_code)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, bytes(body))

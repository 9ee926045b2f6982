"""Where a redirect may lead, and how long the place it leads to may be used for further requests."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urljoin, urlsplit, urlunsplit

from jan_core import InvalidParams

from ..errors import BadSource
from ..names import check_url
from .reach import is_loopback

__all__ = ["REDIRECTS", "expiry", "host_of", "origin", "target"]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AS_IT_IS = "".join(chr(code) for code in range(0x21, 0x7F))
_PORTS = {"http": 80, "https": 443}
_MARGIN = 10.0
"""Seconds before its end that a link is no longer asked."""


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials belong to."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)


def host_of(url: str) -> str:
    """The host, for messages: paths and queries may hold secrets."""
    return urlsplit(url).hostname or "the source"


def target(url: str, location: str) -> str:
    """Where `url` redirects to. Raises BadSource for what must not be followed."""
    host = host_of(url)
    if not location:
        raise BadSource(f"{host} redirects, but does not say where to", host=host)
    try:
        found = check_url(_formed(urljoin(url, _formed(location))), "$")
    except InvalidParams as error:
        raise BadSource(f"{host} redirects to an address that cannot be used: {error.message}", host=host) from None
    except ValueError:
        raise BadSource(f"{host} redirects to an address that cannot be used", host=host) from None
    if url.startswith("https:") and not found.startswith("https:"):
        raise BadSource(f"{host} redirects from https to plain http, which is refused", host=host)
    if is_loopback(host_of(found)) and not is_loopback(host):
        raise BadSource(f"{host} redirects to this machine, which is refused", host=host)
    return found


def _formed(location: str) -> str:
    """An address as a URL: servers send what is not ASCII as it is, and the standard library reads it as Latin-1.

    Raises ValueError.
    """
    with contextlib.suppress(UnicodeError):  # where it was no UTF-8
        location = location.encode("latin-1").decode()
    parts = urlsplit(location)
    place = parts.netloc
    if not place.isascii():
        host, colon, port = place.rpartition(":")
        host, tail = (host, colon + port) if colon and port.isdigit() else (place, "")
        place = host.encode("idna").decode() + tail
    path, query = (quote(text, safe=_AS_IT_IS) for text in (parts.path, parts.query))
    return urlunsplit((parts.scheme, place, path, query, ""))


def expiry(url: str, headers: Mapping[str, str], now: float | None = None) -> float:
    """When (seconds since 1970) a redirect to `url`, answered with `headers`, should no longer be relied on;
    infinity when nothing says so.

    Read are the forms of signed links that are in use: `X-Amz-Date` with `X-Amz-Expires` (S3; `X-Goog-` likewise),
    `Expires` and `se` as an instant (CloudFront, Azure). Where there is none, `Cache-Control` of the redirect counts.
    """
    now = time.time() if now is None else now
    ends: list[float] = []
    try:
        query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query, max_num_fields=100).items()}
    except ValueError:
        query = {}
    for vendor in ("x-amz-", "x-goog-"):
        begin, length = _instant(query.get(vendor + "date", "")), query.get(vendor + "expires", "")
        if re.fullmatch("[0-9]{1,9}", length):
            ends.append((begin if begin is not None else now) + int(length))
    ends += [at for name in ("expires", "se") if (at := _instant(query.get(name, ""))) is not None]
    control = headers.get("Cache-Control", "").lower()
    if not ends and "no-store" in control:
        return now
    if not ends and (match := re.search(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})", control)):
        ends.append(now + int(match[1]))
    return min(ends, default=float("inf")) - _MARGIN


def _instant(text: str) -> float | None:
    """Seconds since 1970, ISO 8601 or its basic form."""
    if re.fullmatch("[0-9]{9,11}", text):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

"""What an answer to a request is worth: a file, a part of one, or an error in our words. It reads heads, not bodies."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jan_core import JanError

from ..errors import BadSource, SourceNotFound, SourceUnauthorized
from .errors import Changed, NoRanges, Unreachable
from .ranges import content_length, content_range, retry_after, strong_validator

__all__ = ["Extent", "asked_delay", "extent", "refusal"]

_TRANSIENT = frozenset({408, 425, 429})
_RATE_LIMIT = re.compile(r"\br=0\b.*\bt=([0-9]{1,6})\b")
_RATE_LIMIT_MARGIN = 1.0


@dataclass(frozen=True)
class Extent:
    """Which bytes an answer carries, as `Body` has it."""

    first: int
    last: int
    total: int
    ranged: bool
    validator: str


def refusal(status: int, headers: Mapping[str, str], host: str, missing: str = "") -> Exception | None:
    """The error that an answer stands for; None for one that carries a file, or says why not (416).

    `missing`: the name of the variable that should hold the token for the host, if there is none.
    """
    if status in (200, 206, 416):
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return None
        return BadSource(
            f"{host} sends the file encoded as {_shown(encoding)}, though only identity was asked for", host=host
        )
    said = f"{host} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if status in _TRANSIENT or status >= 500:
        return Unreachable(said, asked_delay(headers), status=status)
    if status == 407:
        return BadSource("the proxy wants a login, or refuses the one it got", status=status)
    kind: type[JanError] = BadSource
    data: dict[str, object] = {}
    if status in (401, 403):
        kind = SourceUnauthorized
        why, licence = _unauthorized(status, headers)
        said += f": {why}"
        if missing:
            said += f"; the variable {missing}, which should hold the token for it, is not set"
        data["licence"] = licence
    elif status in (404, 410):
        kind = SourceNotFound
    return kind(said, status=status, host=host, **data)


def extent(
    status: int, headers: Mapping[str, str], host: str, first: int, last: int, validator: str, size: int
) -> Extent:
    """What a 200, 206 or 416 carries, checked against what was asked for (see `Network.open`).

    Raises Changed, NoRanges or BadSource.
    """
    got = content_range(headers.get("Content-Range"))
    length, version = content_length(headers), strong_validator(headers)
    if status == 416:
        if got is not None and got.total >= 0 and got.total != size:
            raise Changed(f"{host} has a file of {got.total} bytes", host=host, actual=got.total, expected=size)
        raise NoRanges(f"{host} says that the part from byte {first} cannot be had", host=host)
    total = length if status == 200 else got.total if got else -1
    if size and total not in (-1, size):
        raise Changed(f"{host} has a file of {total} bytes, not {size}", host=host, actual=total, expected=size)
    if validator and version and version != validator and version[0] == validator[0] == '"':
        raise Changed(f"{host} has another version of the file now", host=host)
    if status == 200:
        if first:
            raise NoRanges(f"{host} gives only the whole file", host=host)
        return Extent(0, length - 1, length, ranged=False, validator=version)
    if got is None or got.first != first:
        raise BadSource(f"{host} sends another part than was asked for", host=host)
    known = total if total >= 0 else size
    end = last if last >= 0 and (not known or last < known) else known - 1
    if got.last != end or length not in (-1, got.last - first + 1):
        raise BadSource(f"{host} sends another part than was asked for", host=host)
    return Extent(first, got.last, total, ranged=True, validator=version)


def asked_delay(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: Retry-After, or the RateLimit header of an exhausted budget (`r=0;t=55`,
    draft-ietf-httpapi-ratelimit-headers, as Hugging Face sends it); 0 when it does not."""
    delay = retry_after(headers.get("Retry-After"))
    match = _RATE_LIMIT.search(headers.get("RateLimit", "")[:512])
    return max(delay, min(3600.0, int(match[1]) + _RATE_LIMIT_MARGIN)) if match else delay


def _unauthorized(status: int, headers: Mapping[str, str]) -> tuple[str, bool]:
    """Why, in words, and whether a licence must be accepted. `X-Error-Code` is Hugging Face's."""
    code = headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        need = " first" if status == 403 else ", and a token given for it"
        return f"the licence of this model must be accepted on its web page{need}", True
    if code == "RepoNotFound":
        return "there is no such model, or it is private and wants a token", False
    if status == 401:
        return "it wants a token, or refuses the one it got", False
    return "it wants credentials, or a licence accepted on its web page", False


def _shown(text: str) -> str:
    return "".join(c for c in text[:40] if c.isprintable())

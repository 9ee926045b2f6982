"""The parts of HTTP that resuming needs: validators, Content-Range, Retry-After (RFC 9110 sections 8.8, 13.1.5, 14.4,
10.2.3)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

__all__ = ["ContentRange", "content_length", "content_range", "retry_after", "strong_validator", "timestamp"]

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True)
class ContentRange:
    """`first`-`last` inclusive, of `total` bytes. -1: not given."""

    first: int
    last: int
    total: int


def content_range(value: str | None) -> ContentRange | None:
    """Read a Content-Range header; None when there is none or it means nothing."""
    match = _CONTENT_RANGE.fullmatch((value or "").strip())
    if not match:
        return None
    first, last, total = (-1 if text in (None, "*") else int(text) for text in match.groups())
    if first >= 0 and (last < first or 0 <= total <= last):
        return None
    return ContentRange(first, last, total)


def content_length(headers: Mapping[str, str]) -> int:
    """The length of the body as its head announces it; -1 when it does not, or not in a way that holds."""
    value = headers.get("Content-Length", "").strip()
    if "Transfer-Encoding" in headers or not re.fullmatch("[0-9]{1,18}", value):
        return -1
    return int(value)


def strong_validator(headers: Mapping[str, str]) -> str:
    """What If-Range may carry for this response: its strong ETag, else its Last-Modified if that is strong; else "".

    A Last-Modified is strong when the response's own Date is at least a minute later: two versions within one second
    could not be told apart otherwise (RFC 9110 section 8.8.2.2; the minute is RFC 7232's caution).
    """
    etag = headers.get("ETag", "").strip()
    if etag:
        return etag if _STRONG_ETAG.fullmatch(etag) else ""
    modified, date = headers.get("Last-Modified", "").strip(), headers.get("Date", "")
    seconds = timestamp(modified), timestamp(date)
    return modified if seconds[0] is not None and seconds[1] is not None and seconds[1] - seconds[0] >= 60 else ""


def retry_after(value: str | None) -> float:
    """Seconds to wait as a server asked, at most an hour; 0 when it did not or not intelligibly."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 3600))
    at = timestamp(text)
    return min(max(0.0, at - time.time()), 3600.0) if at is not None else 0.0


def timestamp(value: str) -> float | None:
    """Read an HTTP date, as seconds since 1970; None when it is none."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None

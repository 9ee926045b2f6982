"""The rules that many fields share. Each raises ValueError with the field's place and the reason."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from .constraint import Constraint

__all__ = [
    "PRINTABLE",
    "date",
    "distinct",
    "few",
    "fits",
    "identifier",
    "line",
    "part",
    "percent",
    "sha256",
    "target",
    "text",
    "url",
    "value",
    "version_range",
    "whole",
]

_ID = re.compile(r"[a-z0-9_](?:[a-z0-9._:@+/-]{0,126}[a-z0-9_])?")
_PART = re.compile(r"[a-z0-9_](?:[a-z0-9._+-]{0,126}[a-z0-9_])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"(?:>=|<=|==|!=|>|<) ?[0-9A-Za-z][0-9A-Za-z.+-]*")
_BREAKS = re.compile(r"[\t\n\u2028\u2029]")
PRINTABLE = re.compile(r"[\x21-\x7e]+")


def identifier(where: str, given: str) -> None:
    if not _ID.fullmatch(given) or ".." in given or "//" in given:
        raise ValueError(f"{where}: must be 1 to 128 lower-case letters, digits and . _ : @ + / -")


def part(where: str, given: str) -> None:
    """An id within something that has one, or the name of a kind."""
    fits(where, given, _PART, "must be 1 to 128 lower-case letters, digits and . _ + -")


def sha256(where: str, given: str) -> None:
    fits(where, given, _SHA256, "must be 64 lower-case hexadecimal digits")


def fits(where: str, given: str, pattern: re.Pattern[str], rule: str) -> None:
    if not pattern.fullmatch(given):
        raise ValueError(f"{where}: {rule}")


def target(where: str, constraints: list[Constraint]) -> None:
    few(where, constraints, 32)
    for number, it in enumerate(constraints):
        line(f"{where}[{number}].field", it.field, 64, required=True)
        line(f"{where}[{number}].op", it.op, 64, required=True)
        if not 1 <= len(it.values) <= 256:
            raise ValueError(f"{where}[{number}].values: must be 1 to 256")
        for given in it.values:
            value(f"{where}[{number}].values", given)


def value(where: str, given: bool | int | str) -> None:
    if isinstance(given, str):
        line(where, given, 500)


def line(where: str, given: str, limit: int, *, required: bool = False) -> None:
    if required and not given.strip():
        raise ValueError(f"{where}: must not be empty")
    text(where, given, limit)
    if _BREAKS.search(given):
        raise ValueError(f"{where}: must be one line")


def text(where: str, given: str, limit: int) -> None:
    if len(given) > limit:
        raise ValueError(f"{where}: longer than {limit} characters")


def whole(where: str, given: int) -> None:
    if given < 0:
        raise ValueError(f"{where}: must be 0 or more")


def percent(where: str, given: int) -> None:
    if not 0 <= given <= 100:
        raise ValueError(f"{where}: must be 0 to 100")


def few(where: str, given: list[Any] | dict[str, Any], limit: int) -> None:
    if len(given) > limit:
        raise ValueError(f"{where}: more than {limit}")


def distinct(where: str, what: str, given: Iterable[str]) -> None:
    listed = list(given)
    if len(set(listed)) < len(listed):
        raise ValueError(f"{where}: two have the same {what}")


def version_range(where: str, given: str) -> None:
    if len(given) > 200 or not all(_RANGE.fullmatch(each.strip()) for each in given.split(",")):
        raise ValueError(f"{where}: must be a range of versions, such as >=0.3 or >=0.3,<2")


def date(where: str, given: str) -> None:
    """As RFC 3339 writes it; "" for none."""
    if not given:
        return
    try:
        good = datetime.date.fromisoformat(given).isoformat() == given
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{where}: must be a date, such as 2026-01-31")


def url(where: str, given: str) -> None:
    """https, or http to this machine; without credentials."""
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise ValueError(f"{where}: cannot be read") from None
    host = parts.hostname or ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    clean = PRINTABLE.fullmatch(given) and len(given) <= 4096 and port != 0
    if not (safe and clean and host and parts.username is None and parts.password is None):
        raise ValueError(f"{where}: must be https, without credentials in it")

"""Cursors: where a page ended, as an opaque text."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from jan_core import InvalidParams

__all__ = ["decode_cursor", "encode_cursor"]

T = TypeVar("T")


def encode_cursor(place: object) -> str:
    """Plain data as a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(cursor: str, kind: type[T]) -> T:
    """The place a cursor of ours names. Raises InvalidParams for anything else."""
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(data, type=kind)
    except (ValueError, msgspec.DecodeError):  # binascii.Error and UnicodeError are ValueErrors
        raise InvalidParams("not a cursor of this list", path="$.cursor") from None

"""Reads a message member by member, and says what is wrong with one that cannot be understood. Answers nobody."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from ..errors import InvalidRequest, JanError, ParseError
from .depth import MAX_DEPTH, depth_exceeds
from .messages import Envelope, Id, decode_cancel, decode_envelope, decode_id

__all__ = ["Unreadable", "cancels", "envelope", "exits", "members"]

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding fails with. msgspec reports bad UTF-8 as UnicodeDecodeError, not as its own."""


class Unreadable(Exception):
    """No message that can be acted on: answer `error`, to `id` if it could be told."""

    def __init__(self, id: Id | None, error: JanError) -> None:
        super().__init__(id, error)
        self.id, self.error = id, error


def members(data: bytes) -> list[bytes] | None:
    """The members of a batch; None if it is none. Raises Unreadable when it nests too deeply, batch or not."""
    if depth_exceeds(data):
        raise Unreadable(decode_id(data), InvalidRequest(f"nested deeper than {MAX_DEPTH}"))
    if data.lstrip()[:1] != b"[":
        return None
    try:
        found = msgspec.json.decode(data, type=list[Raw])
    except BAD_JSON as error:
        raise _malformed(data, error) from None
    if not found:
        raise Unreadable(None, InvalidRequest("empty batch"))
    return [bytes(member) for member in found]


def envelope(data: bytes) -> Envelope | None:
    """A request or notification; None for a response, which is nothing to us, who ask nothing. Raises Unreadable."""
    try:
        read = decode_envelope(data)
    except BAD_JSON as error:
        raise _malformed(data, error) from None
    id = None if read.id is UNSET else read.id
    if read.jsonrpc != "2.0":
        raise Unreadable(id, InvalidRequest('jsonrpc must be "2.0"'))
    if read.method is UNSET:
        if read.result is UNSET and read.error is UNSET:
            raise Unreadable(id, InvalidRequest("no method"))
        return None
    if read.id is None:
        raise Unreadable(None, InvalidRequest("id must not be null"))
    return read


def exits(data: bytes) -> bool:
    """Whether a message is the notification that ends the conversation."""
    if b'"exit"' not in data:
        return False
    try:
        read = decode_envelope(data)
    except BAD_JSON:
        return False
    return read.method == "exit" and read.id is UNSET


def cancels(data: bytes) -> Id | None:
    """The request that a message asks to be cancelled; None when it asks nothing of the kind."""
    if b"/cancelRequest" not in data:
        return None
    try:
        read = decode_envelope(data)
        return decode_cancel(read.params).id if read.method == "$/cancelRequest" and read.params is not UNSET else None
    except BAD_JSON:
        return None


def _malformed(data: bytes, error: Exception) -> Unreadable:
    try:
        msgspec.json.decode(data)  # a wrong type is found before what is no JSON further on
    except BAD_JSON as broken:
        return Unreadable(None, ParseError(f"not JSON: {broken}"))
    return Unreadable(decode_id(data), InvalidRequest(str(error)))

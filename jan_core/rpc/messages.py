"""The shapes of JSON-RPC 2.0 messages (https://www.jsonrpc.org/specification), and their encoding. No behaviour."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ..errors import ErrorObject

__all__ = [
    "CancelParams",
    "Envelope",
    "Id",
    "Notification",
    "ProgressParams",
    "StreamParams",
    "Success",
    "decode_cancel",
    "decode_envelope",
    "decode_id",
    "encode",
    "failure",
    "notification",
    "take_progress_token",
]

Id = int | str


class Envelope(Struct, gc=False):
    """Any incoming message. `params`, `result` and `error` stay undecoded until it is known what they must be."""

    jsonrpc: str = ""
    method: str | UnsetType = UNSET
    id: int | str | UnsetType | None = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _IdOnly(Struct, gc=False):
    id: int | str | None = None


class CancelParams(Struct, gc=False):
    """`$/cancelRequest`, as in the Language Server Protocol."""

    id: int | str


class StreamParams(Struct, gc=False):
    """`$/stream`: item number `seq` (from 0, without gaps) of request `id`."""

    id: int | str
    seq: int
    delta: Any


class ProgressValue(Struct, gc=False, omit_defaults=True):
    kind: str
    message: str = ""
    done: float | None = None
    total: float | None = None


class ProgressParams(Struct, gc=False):
    """`$/progress` for the `progressToken` that a request carried; `kind` is begin, report or end."""

    token: int | str
    value: ProgressValue


class Success(Struct, gc=False):
    """The answer of a request that succeeded."""

    id: int | str | None
    result: Any
    jsonrpc: str = "2.0"


class _Failure(Struct, gc=False):
    id: int | str | None
    error: ErrorObject
    jsonrpc: str = "2.0"


class Notification(Struct, gc=False):
    """What is not answered: events, stream items, progress."""

    method: str
    params: Any
    jsonrpc: str = "2.0"


encode = msgspec.json.Encoder().encode
decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_cancel = msgspec.json.Decoder(CancelParams).decode
_decode_id = msgspec.json.Decoder(_IdOnly).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def failure(id: Id | None, error: ErrorObject) -> bytes:
    return encode(_Failure(id, error))


def notification(method: str, params: Any) -> bytes:
    return encode(Notification(method, params))


def decode_id(message: bytes) -> Id | None:
    """The id of a message that is otherwise wrong, so that its sender learns which one; None when it has none."""
    try:
        return _decode_id(message).id
    except Exception:
        return None


def take_progress_token(params: Raw) -> tuple[Id | None, Raw]:
    """Split the `progressToken` off a request's params: the method's own schema does not know it.

    Returns no token and the same params when there is none, or when it is neither a string nor an integer.
    """
    if b'"progressToken"' not in bytes(params):
        return None, params
    try:
        members = _decode_members(params)
        token = msgspec.json.decode(members.pop("progressToken"), type=int | str)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return None, params  # nested deeper, or not what it should be: the method's schema has its say
    return token, Raw(encode(members))

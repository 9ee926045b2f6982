"""Request bodies: bounded while they are read, JSON only, decoded into the shapes the methods take."""

from __future__ import annotations

import re
from typing import TypeVar

import anyio
import msgspec
from starlette.requests import Request

from .errors import Refusal

__all__ = ["decode", "read"]

T = TypeVar("T")
SILENCE = 30.0
"""Seconds without a byte after which an unfinished body is given up."""

_PATH = re.compile(r"^(?P<what>.*) - at `(?P<path>[^`]*)`$", re.DOTALL)


async def read(request: Request, limit: int) -> bytes:
    """The whole body. Raises Refusal: 413 as soon as it is known to be over `limit` bytes, 408 when it stalls."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts = bytearray()
    while True:
        try:
            with anyio.fail_after(SILENCE):
                message = await request.receive()
        except TimeoutError:
            raise Refusal(408, "request_timeout", f"no data for {SILENCE:g} seconds") from None
        if message["type"] == "http.disconnect":
            raise Refusal(400, "incomplete_body", "the client left before the body was complete")
        parts += message.get("body", b"")
        if len(parts) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(parts)


def decode(body: bytes, kind: type[T]) -> T:
    """Decode and check a JSON body. Raises Refusal with the path of the bad field in `param`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), "")
        param = path.removeprefix("$").removeprefix(".") or None
        missing = re.search(r"required field `([^`]*)`", what)
        if missing:
            param = f"{param}.{missing[1]}" if param else missing[1]
        raise Refusal(400, "invalid_value", f"{param or 'body'}: {what}", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", f"the body is not valid JSON: {error}") from None


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body is over the limit of {limit} bytes")

"""What a hook's implementations must return, and a quick way to see that they did.

The types stand in the annotations of `hookspecs.py`. A value of exactly that type passes as it is; anything else is
converted, so that a Struct of an older or newer generation, or plain data, becomes what the caller expects.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Any, NamedTuple

import msgspec

from . import hookspecs
from .hookspecs import HookSpec

__all__ = ["Promised", "WrongType", "checked", "promised"]


class WrongType(Exception):
    """An implementation returned something else than its hook says."""


class Promised(NamedTuple):
    """A hook's specification, and the type its results are checked against (None: not checked here)."""

    spec: HookSpec
    result: Any
    item: type | None
    """`result` is a list of these."""


@functools.cache
def promised(name: str) -> Promised:
    """What the specification of a hook says. It is the core's own, so keeping it keeps no extension alive."""
    found = hookspecs.hookspecs()[name]
    result = typing.get_type_hints(found.function).get("return")
    if found.mode == "single" or result in (type(None), Any):
        # Methods and settings are types and functions, not data; whoever loads the extension checks them.
        return Promised(found, None, None)
    return Promised(found, result, typing.get_args(result)[0] if typing.get_origin(result) is list else None)


def checked(hook: str, value: Any) -> Any:
    """The value, as the hook's type. Raises WrongType."""
    _, result, item = promised(hook)
    kind = type(value)
    if kind is result or (kind is list and item is not None and set(map(type, value)) <= {item}):
        return value
    if kind is types.CoroutineType:
        value.close()
        raise WrongType(f"{hook} returned a coroutine; declare it `async def`")
    if result is None:
        return value
    try:
        return msgspec.convert(value, result, from_attributes=True)
    except msgspec.ValidationError as error:
        raise WrongType(f"{hook} returned the wrong type: {error}") from None

"""What the type of a method's params tells by itself, found once, where the method is made.

Resolving a Struct's annotations takes some ten microseconds for each; a thread that stages an extension of 150 methods
has that time, the event loop that follows a changed table has not.
"""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec

__all__ = ["Traits", "traits_of"]

FLAT = (str, int, float, bool, bytes, type(None), msgspec.UnsetType)
CONTAINERS = (list, dict, set, frozenset, tuple, typing.Union, types.UnionType)


class Traits(NamedTuple):
    """Of params of type `kind`. `names` are the members' on the wire, None when anything may come; `open`: unknown
    members are skipped; `nests`: values may nest without end."""

    kind: Any
    names: frozenset[str] | None
    open: bool
    nests: bool


def traits_of(kind: Any) -> Traits:
    """The traits of a type of params."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = frozenset(kind.__struct_encode_fields__)
        return Traits(kind, names, not kind.__struct_config__.forbid_unknown_fields, _nests(kind, ()))
    return Traits(kind, None, True, True)


def _nests(kind: Any, inside: tuple[Any, ...]) -> bool:
    """Whether values of a type may nest without end. What Structs do not know and skip is left out."""
    if kind in FLAT or typing.get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        return False
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind in inside or any(_nests(f.type, (*inside, kind)) for f in msgspec.structs.fields(kind))
    if typing.get_origin(kind) in CONTAINERS:
        return any(_nests(argument, inside) for argument in typing.get_args(kind) if argument is not ...)
    return True

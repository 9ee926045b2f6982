"""Names and comments as Rust wants them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ..contract import Schema, comment_lines, words

__all__ = [
    "RESERVED_TYPES",
    "at",
    "distinct",
    "doc",
    "field_name",
    "listed",
    "literal",
    "module_name",
    "placed",
    "type_name",
]

_KEYWORDS = """
abstract as async await become box break const continue do dyn else enum extern false final fn for gen if impl in let
loop macro match mod move mut override priv pub ref return static struct trait true try type typeof unsafe unsized use
virtual where while yield
"""
KEYWORDS = frozenset(_KEYWORDS.split())
NEVER_RAW = frozenset({"self", "super", "crate", "Self", "_"})
RESERVED_TYPES = frozenset(
    {"Box", "Clone", "Debug", "Default", "Err", "None", "Ok", "Option", "Result", "Self", "Some", "String", "Vec"}
)
"""Names of the prelude that generated code uses by their short names."""
RESERVED_MODULES = frozenset({"methods", "serde", "serde_json", "std"})
"""What generated code names beside the modules of owners: a module of its own, and crates."""


_UNPLACED = "\0"
"""Begins a path that is not placed yet. It cannot be in an identifier, a literal or a comment of ours."""


def at(owner: str, name: str) -> str:
    """The path of a type, not yet placed: which it is depends on the module it stands in."""
    return f"{_UNPLACED}{module_name(owner)}::{name}"


def placed(code: str, owner: str | None, depth: int = 1) -> str:
    """Code whose paths are those of owner's module, or of one that is nobody's and `depth` modules deep."""
    if owner is not None:
        code = code.replace(f"{_UNPLACED}{module_name(owner)}::", "")
    return code.replace(_UNPLACED, "super::" * depth)


def module_name(owner: str) -> str:
    """An owner's module. Only `a-b` and `a_b` share one, which no two extensions should be called."""
    name = _usable(re.sub(r"\W", "_", owner))
    return f"{name}_" if name in RESERVED_MODULES else name


def type_name(name: str) -> str:
    """A type's name that hides nothing of the prelude."""
    return f"{name}_" if name in RESERVED_TYPES else name


def field_name(name: str) -> str:
    """A member in snake case; keywords raw."""
    text = "_".join(word.lower() for word in words(name)) or "empty"
    return _usable(f"_{text}" if text[0].isdigit() else text)


def _usable(name: str) -> str:
    if name in NEVER_RAW:
        return f"{name}_"
    return f"r#{name}" if name in KEYWORDS else name


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, those that are there already with an underscore more."""
    found: list[str] = []
    unusable = RESERVED_TYPES | NEVER_RAW | set(taken)
    for name in names:
        while name in unusable or name in found:
            name += "_"
        found.append(name)
    return found


def literal(text: str) -> str:
    """A string literal."""
    plain = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(plain.get(c, c if " " <= c <= "~" else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def listed(values: Iterable[str]) -> str:
    """Values in a sentence of a comment."""
    return ", ".join(f"`{value}`" for value in values)


def doc(text: str, schema: Schema | None = None) -> str:
    """A doc comment, with the default of the member that `schema` describes."""
    lines = comment_lines(text)
    if schema is not None and schema.get("default") not in (None, "", [], (), {}):
        lines += ([""] if lines else []) + [f"Default: `{json.dumps(schema['default'])}`."]
    return "".join(f"/// {line}".rstrip() + "\n" for line in lines)

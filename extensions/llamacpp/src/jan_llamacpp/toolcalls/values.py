"""What the text of an argument means, in forms of tool calls that write every argument as a text.

The tool's schema decides. A text that is not what the schema wants is passed on as it is: whoever runs the tool judges
its arguments.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["dumped", "kinds_of", "loaded", "property_of", "sendable", "takes_text", "typed"]

_ANY = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_CONSTANTS = {"True": True, "False": False, "None": None}
"""As templates write them that leave it to Python."""
_MAX_REFERENCES = 20


def property_of(schema: Any, key: str) -> Any:
    """The schema of an argument; {} where nothing is said of it. What it refers to comes with it."""
    if not isinstance(schema, dict):
        return {}
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    found = properties.get(key, more) if isinstance(properties, dict) else more
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    return {**shared, **found} if isinstance(found, dict) else {}


def takes_text(schema: Any) -> bool:
    """Whether every value is a string, so that each text is one as it stands."""
    return kinds_of(schema) == {"string"}


def typed(text: str, schema: Any) -> str:
    """The value that `text` stands for, as JSON."""
    kinds = kinds_of(schema)
    if kinds == {"string"}:
        return dumped(text)
    bare = text.strip()
    value = _CONSTANTS[bare] if bare in _CONSTANTS else loaded(bare)
    if (value is None and bare not in ("null", "None")) or ("string" in kinds and not _kind(value) & kinds):
        return dumped(text)
    if isinstance(value, str) and "string" in kinds:
        return dumped(text)
    try:
        return dumped(value)
    except ValueError:  # 1e999
        return dumped(text)


def loaded(text: str) -> Any:
    """The value of a JSON text; None for what is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def dumped(value: Any) -> str:
    """JSON that can be sent: half a surrogate pair is escaped. Raises ValueError for a number that is none."""
    made = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return made if made.isascii() or sendable(made) else json.dumps(value, allow_nan=False)


def sendable(text: str) -> bool:
    """Half a surrogate pair is no text that could be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def kinds_of(schema: Any, root: Any = None, depth: int = 0) -> frozenset[str]:
    """The types that values of a schema may have. `root`: where references lead; None: this schema itself."""
    if not isinstance(schema, dict) or depth > _MAX_REFERENCES:
        return _ANY
    root = schema if root is None else root
    if isinstance(schema.get("$ref"), str):
        target = root
        for part in schema["$ref"].split("/")[1:]:
            target = target.get(part) if isinstance(target, dict) else None
        return kinds_of(target, root, depth + 1)
    if "const" in schema:
        return _kind(schema["const"])
    if isinstance(schema.get("enum"), list):
        return frozenset().union(*map(_kind, schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return frozenset().union(*(kinds_of(way, root, depth + 1) for way in schema[key]))
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return frozenset({kinds})
    if isinstance(kinds, list):
        return frozenset(kind for kind in kinds if isinstance(kind, str))
    return _ANY


def _kind(value: Any) -> frozenset[str]:
    """The types that a schema may have for this value."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
    return frozenset({"object"})

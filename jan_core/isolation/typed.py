"""Makes types of an isolated extension's JSON schemas: its settings as a Struct, its errors as classes.

Its own classes never reach the host, which checks values in settings all the same. What a JSON schema cannot say (and
msgspec's own constraints can all be said) is left to the child, which falls back to its default as for any stored
value that does not fit.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Annotated, Any, Literal, Union

import msgspec

from ..errors import JanError
from .shapes import Description, ErrorShape

__all__ = ["error_type", "settings_type"]

PLAIN: dict[str, Any] = {"boolean": bool, "null": None}

FORMATS: dict[str, Any] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}

CONSTRAINTS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "pattern": "pattern",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "minProperties": "min_length",
    "maxProperties": "max_length",
}


def settings_type(description: Description) -> type[msgspec.Struct] | None:
    """The Struct of an extension's settings; None when it has none."""
    schema = description.settings
    if schema is None:
        return None
    built = _Schemas(description.settings_types)
    while "$ref" in schema:
        schema = built.resolve(schema)
    return built.struct(schema, description.defaults)


def error_type(shape: ErrorShape) -> type[JanError]:
    """A class that stands for an error the extension declares."""
    members = {"code": shape.code, "type": shape.type, "retryable": shape.retryable, "__doc__": shape.doc}
    return type(shape.name, (JanError,), members)


class _Schemas:
    """Types by the schemas they are made of."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components
        self._made: dict[str, Any] = {}

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._components[schema["$ref"].rpartition("/")[2]]
        return found

    def struct(self, schema: dict[str, Any], defaults: dict[str, Any] | None = None) -> type[msgspec.Struct]:
        """A Struct for an object with known members. `defaults` are the values of all of them."""
        required = schema.get("required", ())
        fields: list[tuple[str, Any, Any]] = []
        names: dict[str, str] = {}
        for place, (name, member) in enumerate(schema.get("properties", {}).items()):
            kind = self.type(member)
            field = f"field_{place}"  # a member may be called what no attribute can be
            names[field] = name
            if defaults is not None:
                fields.append((field, kind, msgspec.field(default_factory=_default(defaults.get(name), kind))))
            elif name in required:
                fields.append((field, kind, msgspec.NODEFAULT))
            else:
                value = member.get("default")
                optional = kind if "default" in member else kind | None if kind is not Any else Any
                fields.append((field, optional, msgspec.field(default_factory=_default(value, optional))))
        return msgspec.defstruct(
            schema.get("title", "Settings"),
            fields,
            rename=names,
            kw_only=True,
            namespace={"__doc__": schema.get("description")},
            forbid_unknown_fields=schema.get("additionalProperties") is False,
        )

    def type(self, schema: dict[str, Any]) -> Any:
        """The type of a schema; `Any` for what cannot be said."""
        try:
            kind = self._type(schema)
            msgspec.json.Decoder(kind)  # not every combination of types can be told apart
        except (TypeError, KeyError, RecursionError):
            return Any
        return kind

    def _type(self, schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            name = schema["$ref"]
            if name not in self._made:
                self._made[name] = Any  # for types that hold themselves
                self._made[name] = self._type(self.resolve(schema))
            return self._made[name]
        if "const" in schema:
            return Literal[schema["const"]]
        if "enum" in schema:
            return Literal[tuple(schema["enum"])]
        if "anyOf" in schema:
            return Union[tuple(self._type(part) for part in schema["anyOf"])]  # noqa: UP007 (of a computed tuple)
        return self._constrained(self._simple(schema), schema)

    def _simple(self, schema: dict[str, Any]) -> Any:
        kind = schema.get("type")
        if kind == "string":
            return bytes if schema.get("contentEncoding") == "base64" else FORMATS.get(schema.get("format", ""), str)
        if kind == "integer":
            return int
        if kind == "number":
            return float
        if kind == "array":
            if "prefixItems" in schema:
                return tuple[tuple(self._type(part) for part in schema["prefixItems"])]  # type: ignore[misc]
            return list[self._type(schema.get("items", {}))]  # type: ignore[misc]
        if kind == "object":
            if "properties" in schema:
                return self.struct(schema)
            values = schema.get("additionalProperties")
            return dict[str, self._type(values) if isinstance(values, dict) else Any]  # type: ignore[misc]
        return PLAIN.get(kind or "", Any)

    def _constrained(self, kind: Any, schema: dict[str, Any]) -> Any:
        known = {ours: schema[theirs] for theirs, ours in CONSTRAINTS.items() if theirs in schema}
        known |= {name: schema[name] for name in ("title", "description") if name in schema and kind is not Any}
        return Annotated[kind, msgspec.Meta(**known)] if known and "properties" not in schema else kind


def _default(value: Any, kind: Any) -> Any:
    def make() -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return value

    return make

"""Describes the method table as an OpenRPC document (https://spec.open-rpc.org, 1.3.2). Reads the table, changes
nothing. What is generated from the document stands in `jan_core.schema`.

**Names.** A type's schema stands under `owner.Name`: `core.Thread` for what `jan_core` defines, `llamacpp.ModelId` for
what an extension does. So a name never depends on what else is installed. Only when one owner has two types of one
name do both get their module in between, without the package's name (`llamacpp.engines.record.Build`).

**Beyond the specification**, as its extensions: a method's `x-extension` (who serves it), `x-params` (the schema of
its params as one object) and `x-stream` (the schema of its stream items); the document's `x-events` (the notifications
a client may get, with the schema of their params) and `x-errors` (the whole error table). Tagged unions have OpenAPI's
`discriminator`.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from ..errors import JanError, core_errors
from ..events import core_events
from ..methods import Method

__all__ = ["document", "error_table"]

CORE = "core"
REF = "#/components/schemas/"


def document(table: Mapping[str, Method], *, title: str, version: str) -> dict[str, Any]:
    """The OpenRPC document of a table."""
    methods = [table[name] for name in sorted(table)]
    schemas: dict[str, Any] = {}
    described: dict[str, dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    for owner in sorted({m.owner for m in methods}):
        for m in methods:
            if m.owner == owner and m.described is not None:
                described[m.name] = _merge(m, m.described, schemas, events)
        own = [m for m in methods if m.owner == owner and m.name not in described]
        kinds = {name: kind for m in own for name, kind in m.events.items()} | (core_events() if owner == CORE else {})
        types = _Types(owner, [k for m in own for k in (m.params, m.result, m.item)] + list(kinds.values()))
        schemas |= types.schemas  # what is described here counts more than what another process said
        described |= {m.name: _describe(m, types) for m in own}
        events += [{"name": name, "schema": types.schema(kind), "x-extension": owner} for name, kind in kinds.items()]
    return {
        "openrpc": "1.3.2",
        "info": {"title": title, "version": version},
        "methods": [described[m.name] for m in methods],
        "components": {"schemas": dict(sorted(schemas.items()))},
        "x-events": sorted(events, key=lambda event: event["name"]),
        "x-errors": [{**_error(kind), "retryable": kind.retryable} for kind in error_table(table)],
    }


def error_table(table: Mapping[str, Method]) -> list[type[JanError]]:
    """Every error a method may end with, by code: the host's own, then those methods declare."""
    declared = {error for m in table.values() for error in m.errors}
    return core_errors() + sorted(declared - set(core_errors()), key=lambda e: (-e.code, e.type, e.__module__))


def _error(kind: type[JanError]) -> dict[str, Any]:
    meaning = " ".join((inspect.getdoc(kind) or kind.type).split())
    return {"code": kind.code, "message": meaning, "data": {"type": kind.type}}


def _describe(m: Method, types: _Types) -> dict[str, Any]:
    summary, _, description = m.summary.partition("\n")
    members = types.members(m.params)
    described: dict[str, Any] = {
        "name": m.name,
        "summary": summary,
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in members["required"], "schema": schema}
            for name, schema in members.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": types.schema(m.result)},
        "errors": [_error(kind) for kind in m.errors],
        "x-extension": m.owner,
        "x-params": types.schema(m.params),
    }
    if description.strip():
        described["description"] = inspect.cleandoc(description)
    if m.item is not None:
        described["x-stream"] = {"notification": "$/stream", "schema": types.schema(m.item)}
    return described


def _merge(
    m: Method, elsewhere: Mapping[str, Any], schemas: dict[str, Any], events: list[dict[str, Any]]
) -> dict[str, Any]:
    """Take over what the document of another process says of a method. Its names follow the same rule; where it says
    otherwise of a type of the core than we do (it may be another version), ours counts."""
    for name, schema in elsewhere.get("components", {}).get("schemas", {}).items():
        schemas.setdefault(name, schema)
    events += [event for event in elsewhere.get("x-events", []) if event not in events]
    found = next(method for method in elsewhere["methods"] if method["name"] == m.name)
    return {**found, "x-extension": m.owner}


class _Types:
    """The types that one owner's methods use, and their schemas under our names.

    msgspec names a type by its class, or by its whole module when two share a name: which of the two depends on what
    else is described. Here each owner is described alone, and msgspec's names are replaced.
    """

    def __init__(self, owner: str, kinds: Sequence[Any]) -> None:
        named = _named(kinds)
        found, components = msgspec.json.schema_components([*named, *kinds], ref_template=REF + "{name}")
        short = Counter(_short(kind, owner) for kind in named)
        self._names = {
            schema["$ref"].removeprefix(REF): _short(kind, owner)
            if short[_short(kind, owner)] == 1
            else _long(kind, owner)
            for schema, kind in zip(found, named, strict=False)
        }
        self._kinds = kinds  # kept, so that their ids stay theirs
        self._found = {id(kind): schema for kind, schema in zip(kinds, found[len(named) :], strict=True)}
        self.schemas = {self._names[name]: self._renamed(schema) for name, schema in components.items()}

    def schema(self, kind: Any) -> Any:
        """The schema of one of the `kinds`; of one that has a name, the reference to it."""
        return self._renamed(self._found[id(kind)])

    def members(self, kind: Any) -> dict[str, Any]:
        """The object schema behind a type; empty for what is no object with known members."""
        name: str = self.schema(kind).get("$ref", "").removeprefix(REF)
        return dict(self.schemas.get(name, {}))

    def _renamed(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._renamed(part) for part in schema]
        if isinstance(schema, str) and schema.startswith(REF):
            return REF + self._names[schema.removeprefix(REF)]
        if isinstance(schema, dict):
            renamed = {key: self._renamed(value) for key, value in schema.items()}
            if isinstance(doc := renamed.get("description"), str):  # a member may have that name too
                renamed["description"] = inspect.cleandoc(doc)
            return renamed
        return schema


def _named(kinds: Iterable[Any]) -> list[Any]:
    """Every type reachable from `kinds` that msgspec makes a component of, once."""
    found: dict[Any, None] = {}

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            if (cls := getattr(info, "cls", None)) is not None and not isinstance(info, msgspec.inspect.CustomType):
                if cls in found:
                    return
                found[cls] = None
            for name in info.__struct_fields__:
                visit(getattr(info, name))
        elif isinstance(info, tuple | list):
            for part in info:
                visit(part)

    for info in msgspec.inspect.multi_type_info(kinds):
        visit(info)
    return list(found)


def _home(kind: Any, owner: str) -> str:
    return CORE if kind.__module__.partition(".")[0] == __name__.partition(".")[0] else owner


def _short(kind: Any, owner: str) -> str:
    return f"{_home(kind, owner)}.{_title(kind)}"


def _long(kind: Any, owner: str) -> str:
    return ".".join([_home(kind, owner), *kind.__module__.split(".")[1:], _title(kind)])


def _title(kind: Any) -> str:
    """A class's name; of a generic one with its arguments: `Page[int]` is `Page_int`."""
    arguments = [_title(a) if hasattr(a, "__name__") else str(a) for a in get_args(kind)]
    return re.sub(r"\W+", "_", "_".join([kind.__name__, *arguments]))

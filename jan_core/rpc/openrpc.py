"""Describes the method table as an OpenRPC document (https://spec.open-rpc.org, 1.3.2). Reads the table, changes
nothing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import JanError, core_errors
from ..methods import Method

__all__ = ["document", "error_table"]


def document(table: Mapping[str, Method], *, title: str, version: str) -> dict[str, Any]:
    """The OpenRPC document of a table. Stream items stand under `x-stream`, their schema beside the result's.

    Schemas of types that share a name are told apart by their module, as msgspec does.
    """
    methods = [table[name] for name in sorted(table)]
    kinds = [kind for m in methods for kind in (m.params, m.result, m.item) if kind is not None]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {
        "openrpc": "1.3.2",
        "info": {"title": title, "version": version},
        "methods": [_describe(m, components) for m in methods],
        "components": {"schemas": components},
    }


def error_table(table: Mapping[str, Method]) -> list[type[JanError]]:
    """Every error a method may end with, by code: the host's own, then those methods declare."""
    declared = {error for m in table.values() for error in m.errors}
    return core_errors() + sorted(declared - set(core_errors()), key=lambda e: (-e.code, e.type, e.__module__))


def _describe(m: Method, components: Mapping[str, Any]) -> dict[str, Any]:
    summary, _, description = m.summary.partition("\n")
    described: dict[str, Any] = {
        "name": m.name,
        "summary": summary,
        "paramStructure": "by-name",
        "params": _params(m.params),
        "result": {"name": "result", "schema": _schema(m.result)},
        "errors": [
            {"code": e.code, "message": inspect.getdoc(e) or e.type, "data": {"type": e.type}} for e in m.errors
        ],
        "x-extension": m.owner,
    }
    if description.strip():
        described["description"] = inspect.cleandoc(description)
    if m.item is not None:
        described["x-stream"] = {"notification": "$/stream", "schema": _schema(m.item)}
    return described


def _params(kind: Any) -> list[dict[str, Any]]:
    return [
        {"name": f.encode_name, "required": f.required, "schema": _schema(f.type)} for f in msgspec.structs.fields(kind)
    ]


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return schema

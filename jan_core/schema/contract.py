"""An OpenRPC document as generators want to read it: types by owner, methods, events, errors. It writes no code.

JSON Schema is read as far as msgspec writes it (2020-12: `$ref`, `anyOf`, `enum`, `const`, `properties`,
`additionalProperties`, `items`, `prefixItems`, `discriminator`) and as people commonly do by hand (`oneOf`, `allOf` of
one, lists of types). What is beyond that is a value of any kind: too wide, never wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = [
    "REF",
    "Contract",
    "Method",
    "Tagged",
    "Type",
    "comment_lines",
    "literals",
    "owned",
    "pascal",
    "references",
    "split_null",
    "tag_of",
    "tagged",
    "words",
]

REF = "#/components/schemas/"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Type:
    """A named schema. `received`: it is part of what the host says, so that a newer host may say more; `sent`: of what
    it is told."""

    owner: str
    name: str
    schema: Schema
    received: bool
    sent: bool


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `params` is the schema of all params as one object; `item` None for one that does not stream."""

    name: str
    owner: str
    doc: str
    params: Schema
    result: Schema
    item: Schema | None
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged union: the member that tells its kinds apart, and the reference to each kind by that member's value."""

    tag: str
    kinds: dict[str, Schema]


@dataclass
class Contract:
    """What a document says."""

    document: dict[str, Any]
    components: dict[str, Schema] = field(init=False)

    def __post_init__(self) -> None:
        self.document = _readable(self.document, self.document.get("components", {}).get("schemas", {}))
        self.components = self.document.get("components", {}).get("schemas", {})

    @cached_property
    def methods(self) -> list[Method]:
        """By name."""
        return sorted(map(self._method, self.document["methods"]), key=lambda m: m.name)

    @cached_property
    def events(self) -> dict[str, tuple[str, Schema]]:
        """Owner and schema of the params of each event, by the event's name."""
        events = {e["name"]: (e.get("x-extension", "core"), e["schema"]) for e in self.document.get("x-events", [])}
        return dict(sorted(events.items()))

    @cached_property
    def errors(self) -> dict[str, dict[str, Any]]:
        """The error table by type string. One type may stand there twice with other words: its first row counts."""
        table: dict[str, dict[str, Any]] = {}
        for row in self.document.get("x-errors", []):
            table.setdefault(row["data"]["type"], row)
        return dict(sorted(table.items()))

    @cached_property
    def types(self) -> dict[str, Type]:
        """Every component, by its name in the document."""
        received = self._reachable(
            [s for m in self.methods for s in (m.result, m.item)] + [s for _, s in self.events.values()]
        )
        sent = self._reachable([m.params for m in self.methods])
        types = {}
        for key, schema in self.components.items():
            types[key] = Type(*owned(key), schema, key in received, key in sent)
        return types

    @cached_property
    def owners(self) -> list[str]:
        """Who defines types, serves methods or tells of events, by name."""
        told = {owner for owner, _ in self.events.values()}
        return sorted({t.owner for t in self.types.values()} | {m.owner for m in self.methods} | told)

    def resolve(self, schema: Schema) -> Schema:
        """The schema a reference leads to."""
        while "$ref" in schema:
            schema = self.components[schema["$ref"].removeprefix(REF)]
        return schema

    def _method(self, described: dict[str, Any]) -> Method:
        params = described.get("x-params") or {
            "type": "object",
            "properties": {p["name"]: p["schema"] for p in described["params"]},
            "required": [p["name"] for p in described["params"] if p.get("required")],
        }
        doc = [text for key in ("summary", "description") if (text := described.get(key))]
        return Method(
            described["name"],
            described.get("x-extension", "core"),
            "\n\n".join(doc),
            params,
            described["result"]["schema"],
            described["x-stream"]["schema"] if "x-stream" in described else None,
            tuple(dict.fromkeys(e["data"]["type"] for e in described.get("errors", []))),
        )

    def _reachable(self, roots: list[Schema | None]) -> set[str]:
        found: set[str] = set()
        todo = [key for root in roots for key in references(root)]
        while todo:
            if (key := todo.pop()) not in found:
                found.add(key)
                todo += references(self.components[key])
        return found


def _readable(value: Any, known: Mapping[str, Any]) -> Any:
    """A document with a schema of anything in place of `true`, `false` and references to what is not in it."""
    if isinstance(value, list):
        return [_readable(part, known) for part in value]
    if not isinstance(value, dict):
        return value
    if isinstance(ref := value.get("$ref"), str) and ref.removeprefix(REF) not in known:
        return {}
    found = {key: _readable(inner, known) for key, inner in value.items()}
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(parts := found.get(key), list):
            found[key] = [{} if isinstance(part, bool) else part for part in parts]
    for key in ("schema", "x-params"):
        if isinstance(found.get(key), bool):
            found[key] = {}
    for key in ("properties", "schemas"):
        if isinstance(members := found.get(key), dict):
            found[key] = {name: {} if isinstance(inner, bool) else inner for name, inner in members.items()}
    return found


def owned(component: str) -> tuple[str, str]:
    """The owner of a component and its name there: `core.Thread` is `Thread` of `core`, as is one without an owner."""
    owner, dot, name = component.partition(".")
    return (owner, pascal(name)) if dot else ("core", pascal(component))


def tagged(schema: Schema) -> Tagged | None:
    """The tagged union that a schema is, if it is one."""
    discriminator = schema.get("discriminator", {})
    if not discriminator.get("mapping"):
        return None
    kinds = {value: {"$ref": target} for value, target in discriminator["mapping"].items()}
    return Tagged(discriminator["propertyName"], kinds)


def references(schema: Any) -> Iterator[str]:
    """The components a schema refers to, nested ones too."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REF)
        for key, value in schema.items():
            if key not in ("default", "enum", "const", "examples"):
                yield from references(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from references(part)


def split_null(schema: Schema) -> tuple[list[Schema], bool]:
    """A schema's alternatives without null, and whether null is one of them. No alternative at all: only null."""
    if "enum" in schema and None in schema["enum"]:
        rest = [value for value in schema["enum"] if value is not None]
        return ([{**schema, "enum": rest}] if rest else []), True
    if isinstance(kinds := schema.get("type"), list):
        return [{**schema, "type": kind} for kind in kinds if kind != "null"], "null" in kinds
    parts = (
        schema.get("anyOf") or schema.get("oneOf") or (schema["allOf"] if len(schema.get("allOf", ())) == 1 else None)
    )
    if parts is None or tagged(schema) is not None:
        return ([] if schema.get("type") == "null" else [schema]), schema.get("type") == "null"
    found: list[Schema] = []
    nullable = False
    for part in parts:
        inner, null = split_null(part)
        found, nullable = found + inner, nullable or null
    return found, nullable


def comment_lines(text: str) -> list[str]:
    """The lines of a text that goes into a comment, without control characters and those that turn the direction of
    writing: what is read must be what is there."""
    return [re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "", line) for line in text.splitlines()]


def literals(schema: Schema) -> list[Any] | None:
    """The values a schema allows, where it lists them."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def tag_of(schema: Schema) -> tuple[str, str] | None:
    """The member that tells an object of this kind from others, and its value: a required member of one string."""
    for name, member in schema.get("properties", {}).items():
        values = literals(member)
        if values and len(values) == 1 and isinstance(values[0], str) and name in schema.get("required", ()):
            return name, values[0]
    return None


def words(name: str) -> list[str]:
    """`threads.run`, `bytes_done`, `ChatChunk` or `x-2` in words."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+", name)


def pascal(name: str) -> str:
    """A name for a type: `threads.run` is `ThreadsRun`. A name that is one already stays as it is."""
    if re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        return name
    text = "".join(word[:1].upper() + word[1:] for word in words(name)) or "Empty"
    return text if text[0].isalpha() else f"V{text}"

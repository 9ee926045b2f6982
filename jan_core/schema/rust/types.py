"""The types of one owner: a module of structs and enums that serde reads and writes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..contract import REF, Contract, Schema, Tagged, Type, literals, pascal, references, split_null, tagged
from .names import RESERVED_TYPES, at, distinct, doc, field_name, listed, literal, module_name, placed, type_name

__all__ = ["VALUE", "Module"]

PRESENT = """
/// Tells a member that is null (`Some(None)`) from one that is left out (`None`).
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}
"""

VALUE = "serde_json::Value"
OBJECT = "serde_json::Map<String, serde_json::Value>"
DERIVE = "#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct or a variant, in Rust."""

    doc: str
    serde: str
    name: str
    kind: str
    required: bool

    def write(self, visibility: str = "") -> str:
        return f"{self.doc}{self.serde}{visibility}{self.name}: {self.kind},\n"


class Module:
    """One owner's types. What the document does not name is named for where it stands: `DownloadState` for the member
    `state` of `Download`."""

    def __init__(self, contract: Contract, owner: str) -> None:
        self.owner, self._contract = owner, contract
        self._items: dict[str, str] = {}
        self._doubles = False
        self._unfinished: dict[str, str] = {}  # unions being written: within them they are met again, and must end
        self._own = {t.name for t in contract.types.values() if t.owner == owner}

    def write(self) -> str:
        """The whole module; nothing when it would be empty."""
        for key, t in sorted(self._contract.types.items()):
            if t.owner == self.owner and not (key in self._variants and key not in self._plainly_used):
                self._define(type_name(t.name), t, key)
        if not self._items:
            return ""
        body = "\n".join(self._items[name] for name in sorted(self._items)) + (PRESENT if self._doubles else "")
        body = textwrap.indent(placed(body, self.owner), "    ")
        title = "the host itself" if self.owner == "core" else f"the extension `{self.owner}`"
        return f"/// Types of {title}.\npub mod {module_name(self.owner)} {{\n{body}}}\n"

    def type(self, schema: Schema, name: str, received: bool, own: bool = False) -> str:
        """The Rust type of a schema, not yet placed (`names.placed`). `name`: for a type that has to be made; `own`:
        that name is the schema's."""
        if "$ref" in schema:
            found = self._contract.types[schema["$ref"].removeprefix(REF)]
            return at(found.owner, type_name(found.name))
        parts, nullable = split_null(schema)
        if not parts:
            return "()"
        if len(parts) > 1:
            kind = self._untagged(schema, parts, self._free(name, own), received)
        else:
            kind = self._single(parts[0], name, received, own)
        return f"Option<{kind}>" if nullable else kind

    def _define(self, name: str, t: Type, key: str) -> None:
        closed = t.schema.get("type") == "object" and t.schema.get("additionalProperties") is False
        if t.schema.get("properties") or closed:
            self._items[name] = self._struct(name, t.schema, t.received, key, constructed=t.sent)
        elif (inner := self.type(t.schema, name, t.received, own=True)) != at(self.owner, name):
            self._items[name] = f"{doc(t.schema.get('description', ''))}pub type {name} = {inner};\n"

    # -- objects ----------------------------------------------------------------------------------------------------

    def _struct(self, name: str, schema: Schema, received: bool, key: str = "", *, constructed: bool = False) -> str:
        members = list(self._members(name, schema, received, key))
        optional = not any(m.required for m in members)
        derive = DERIVE.replace("Debug, ", "Debug, Default, ") if optional else DERIVE
        body = "".join(textwrap.indent(m.write("pub "), "    ") for m in members)
        text = f"{doc(schema.get('description', ''))}{derive}\npub struct {name} {{\n{body}}}\n"
        if not body:
            return text.replace("{\n}", "{}")
        if constructed and not optional and not all(m.required for m in members):
            text += _constructor(name, members)
        return text

    def _members(self, name: str, schema: Schema, received: bool, key: str = "", skip: str = "") -> Iterator[Member]:
        fields: list[str] = []
        for member, inner in schema.get("properties", {}).items():
            if member == skip:
                continue
            required = member in schema.get("required", ())
            parts, nullable = split_null(inner)
            nullable = nullable and bool(parts)  # what can only be null is `()`
            kind = self.type(inner, f"{name}{pascal(member)}", received)
            bare = kind.removeprefix("Option<").removesuffix(">") if nullable else kind
            if bare in self._unfinished.values() or any(self._holds(part, key) for part in parts):
                kind = f"Option<Box<{kind[7:-1]}>>" if nullable else f"Box<{kind}>"
            field = field_name(member)
            while field in fields:  # `a-b` and `a_b`
                field += "_"
            fields.append(field)
            serde = [] if field.removeprefix("r#") == member else [f"rename = {literal(member)}"]
            if not required:
                serde += ["default", 'skip_serializing_if = "Option::is_none"']
                if nullable and inner.get("default", ...) is not None:  # left out is not the same as null
                    serde.append('deserialize_with = "present"')
                    self._doubles = True
                    kind = f"Option<{kind}>"
                elif not nullable:
                    kind = f"Option<{kind}>"
            attributes = f"#[serde({', '.join(serde)})]\n" if serde else ""
            yield Member(doc(inner.get("description", ""), inner), attributes, field, kind, required)

    def _holds(self, schema: Schema, key: str) -> bool:
        """Whether a member of this kind would have a struct in itself, so that its size had no end."""
        todo, seen = [schema], set()
        while todo:
            part = todo.pop()
            target = part.get("$ref", "").removeprefix(REF)
            if target and target not in seen:
                if target == key:
                    return True
                seen.add(target)
                todo += self._contract.components[target].get("properties", {}).values()
            todo += [inner for inner in split_null(part)[0] if inner is not part]
            union = tagged(part)
            todo += union.kinds.values() if union else []
        return False

    # -- everything else --------------------------------------------------------------------------------------------

    def _single(self, schema: Schema, name: str, received: bool, own: bool) -> str:
        if "$ref" in schema:
            return self.type(schema, name, received)
        if (union := tagged(schema)) is not None:
            same = json.dumps(schema)
            if same not in self._unfinished:
                self._unfinished[same] = at(self.owner, free := self._free(name, own))
                self._tagged(union, schema.get("description", ""), free, received)
                return self._unfinished.pop(same)
            return self._unfinished[same]
        values, kind = literals(schema), schema.get("type")
        if values and all(isinstance(value, str) for value in values):
            return self._strings(schema, values, self._free(name, own), received)
        if kind is None and values and all(isinstance(value, int) for value in values):
            kind = "boolean" if isinstance(values[0], bool) else "integer"
        if kind == "array":
            return self._array(schema, name, received)
        if schema.get("properties"):
            free = self._free(name, own)
            self._items[free] = ""  # taken, while what it is made of is being named
            self._items[free] = self._struct(free, schema, received)
            return at(self.owner, free)
        if kind == "object":
            extra = schema.get("additionalProperties")
            if not isinstance(extra, dict):
                return OBJECT
            return f"std::collections::BTreeMap<String, {self.type(extra, f'{name}Value', received)}>"
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        integer = "u64" if least is not None and least >= 0 else "i64"
        return {"string": "String", "integer": integer, "number": "f64", "boolean": "bool"}.get(kind or "", VALUE)

    def _array(self, schema: Schema, name: str, received: bool) -> str:
        if "prefixItems" in schema:
            each = [self.type(s, f"{name}{n}", received) for n, s in enumerate(schema["prefixItems"])]
            return f"({', '.join(each)}{',' if len(each) == 1 else ''})"
        items = schema.get("items")
        return f"Vec<{self.type(items, f'{name}Item', received) if isinstance(items, dict) else VALUE}>"

    def _strings(self, schema: Schema, values: Sequence[str], name: str, received: bool) -> str:
        variants = distinct(map(pascal, values), {"Other"})
        renamed = zip(values, variants, strict=True)
        lines: list[str] = [f"    #[serde(rename = {literal(value)})]\n    {variant},\n" for value, variant in renamed]
        derive, mark = DERIVE.replace("PartialEq", "PartialEq, Eq, Hash"), ""
        if len(values) == 1:
            derive, lines = derive.replace("Debug", "Debug, Default"), ["    #[default]\n", *lines]
        elif received:
            mark = "#[non_exhaustive]\n"
            lines.append("    /// One that a newer host sends.\n    #[serde(untagged)]\n    Other(String),\n")
        comment = doc(schema.get("description", "") or f"One of {listed(values)}.")
        self._items[name] = f"{comment}{derive}\n{mark}pub enum {name} {{\n{''.join(lines)}}}\n"
        return at(self.owner, name)

    def _tagged(self, union: Tagged, about: str, name: str, received: bool) -> None:
        self._items[name] = ""
        lines, mark = [], ""
        variants = distinct(map(pascal, union.kinds), {"Unknown"})
        for (value, kind), variant in zip(union.kinds.items(), variants, strict=True):
            found = self._contract.resolve(kind)
            members = self._members(f"{name}{variant}", found, received, skip=union.tag)
            body = "".join(textwrap.indent(m.write(), "        ") for m in members)
            comment = textwrap.indent(doc(found.get("description", "")), "    ")
            shape = f" {{\n{body}    }}" if body else " {}"
            lines.append(f"{comment}    #[serde(rename = {literal(value)})]\n    {variant}{shape},\n")
        if received:
            mark = "#[non_exhaustive]\n"
            lines.append("    /// One that a newer host sends.\n    #[serde(other, skip_serializing)]\n    Unknown,\n")
        comment = doc(about or f"One of {listed(union.kinds)}, told by `{union.tag}`.")
        head = f"{comment}{DERIVE}\n#[serde(tag = {literal(union.tag)})]\n{mark}"
        self._items[name] = f"{head}pub enum {name} {{\n{''.join(lines)}}}\n"

    def _untagged(self, schema: Schema, parts: list[Schema], name: str, received: bool) -> str:
        self._items[name] = ""
        variants = distinct(map(_kind, parts))
        lines = [
            f"    {variant}({self.type(part, f'{name}{variant}', received)}),\n"
            for part, variant in zip(parts, variants, strict=True)
        ]
        comment = doc(schema.get("description", "") or "One of several kinds of value.")
        head = f"{comment}{DERIVE}\n#[serde(untagged)]\n"
        self._items[name] = f"{head}pub enum {name} {{\n{''.join(lines)}}}\n"
        return at(self.owner, name)

    def _free(self, name: str, own: bool) -> str:
        while not own and (name in self._own or name in self._items or name in RESERVED_TYPES):
            name += "Value"
        return name

    @cached_property
    def _variants(self) -> set[str]:
        """Components that are variants of a tagged union."""
        return {
            kind["$ref"].removeprefix(REF)
            for schema in _objects(self._contract.document)
            if (union := tagged(schema)) is not None
            for kind in union.kinds.values()
        }

    @cached_property
    def _plainly_used(self) -> set[str]:
        """Components that are referred to elsewhere than in a tagged union: those need a struct of their own."""

        def without_unions(schema: Any) -> Any:
            if isinstance(schema, list):
                return [without_unions(part) for part in schema]
            if not isinstance(schema, dict):
                return schema
            hidden = ("anyOf", "oneOf") if tagged(schema) is not None else ()
            return {key: without_unions(value) for key, value in schema.items() if key not in hidden}

        return set(references(without_unions(self._contract.document)))


def _constructor(name: str, members: list[Member]) -> str:
    arguments = ", ".join(f"{m.name}: {m.kind}" for m in members if m.required)
    values = "".join(f"            {m.name}{'' if m.required else ': None'},\n" for m in members)
    return (
        f"\nimpl {name} {{\n    /// With what is required; the rest left out.\n    #[must_use]\n"
        f"    pub fn new({arguments}) -> Self {{\n        Self {{\n{values}        }}\n    }}\n}}\n"
    )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _kind(schema: Schema) -> str:
    """What to call a variant by."""
    if "$ref" in schema:
        return pascal(schema["$ref"].rpartition("/")[2].rpartition(".")[2])
    if literals(schema):
        return "Known"
    names = {"array": "List", "object": "Object", "string": "Text", "integer": "Integer", "number": "Number"}
    return names.get(schema.get("type", ""), "Flag" if schema.get("type") == "boolean" else "Value")

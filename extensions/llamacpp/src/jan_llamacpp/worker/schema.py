"""From a JSON schema to a grammar that lets only such JSON pass.

Beside what the engine's package brings for this (`llama_grammar.py`): strings hold no raw line breaks, which would be
no JSON; names and values with quotes and backslashes are written right; references are told apart by their whole path;
and the grammar grows with the schema and not with the numbers in it.

What is followed: `type`, `properties` (in their order), `required`, `additionalProperties` (false unless it is given:
as strict schemas want it), `items`, `prefixItems`, `minItems`, `maxItems`, `enum`, `const`, `minLength`, `maxLength`,
`pattern`, `format` (date, time, date-time, uuid), `anyOf`, `oneOf`, `allOf` of objects, `$ref` within the schema, and
of integers `minimum` and `maximum` where they leave at most a thousand values (else only the sign). Other keywords
that only narrow (`multipleOf`, `uniqueItems`, `not`, …) are not enforced. What is no schema is refused with its path.
"""

from __future__ import annotations

import json
from typing import Any

from .gbnf_rules import MAX_REPEAT, GrammarError
from .json_rules import COMMON, FORMATS, json_literal
from .pattern import pattern_rule

__all__ = ["JSON_OBJECT", "schema_to_gbnf", "schemas_to_gbnf"]

MAX_DEPTH = 40
MAX_BYTES = 128 * 1024
MAX_PROPERTIES = 500
MAX_VALUES = 1000
"""An integer within bounds is listed, value by value, up to this many."""

JSON_OBJECT: dict[str, Any] = {"type": "object"}
"""Any JSON object: OpenAI's `json_object`."""

_OF_OBJECTS = ("properties", "additionalProperties", "required")
_OF_ARRAYS = ("items", "prefixItems", "minItems", "maxItems")
_OF_STRINGS = ("pattern", "minLength", "maxLength", "format")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def schema_to_gbnf(schema: Any) -> str:
    """A grammar whose rule `root` is what `schema` describes. Raises GrammarError."""
    return schemas_to_gbnf({"root": schema})


def schemas_to_gbnf(schemas: dict[str, Any]) -> str:
    """Rules of these names for these schemas, and what they need: rules named as in `COMMON`, or `r1` or `ref1`.

    Raises GrammarError.
    """
    try:
        size = len(json.dumps(schemas))
    except (ValueError, TypeError, RecursionError):
        raise GrammarError("the JSON schema is nested too deep, or is no JSON") from None
    if size > MAX_BYTES:
        raise GrammarError(f"the JSON schema has {size} characters; {MAX_BYTES} are allowed")
    converter = _Converter()
    for name, schema in schemas.items():
        converter.add(name, schema)
    return converter.text()


class _Converter:
    def __init__(self) -> None:
        self._schema: Any = None
        self._rules = dict(COMMON)
        self._names: dict[str, str] = {}
        self._refs: dict[str, str] = {}

    def add(self, name: str, schema: Any) -> None:
        """A rule for what `schema` describes; references in it lead to places within it."""
        self._schema, self._refs = schema, {}
        self._rules[name] = self._visit(schema, "$", 0)

    def text(self) -> str:
        return "".join(f"{name} ::= {body}\n" for name, body in self._rules.items())

    def _rule(self, body: str) -> str:
        """The name of a rule with this body."""
        if body in self._rules:
            return body
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = f"r{len(self._rules)}"
            self._rules[name] = body
        return name

    def _visit(self, schema: Any, path: str, depth: int) -> str:
        """The body of a rule for what `schema` describes."""
        if depth > MAX_DEPTH:
            raise GrammarError(f"the JSON schema is nested deeper than {MAX_DEPTH} levels")
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise GrammarError(f"the JSON schema at {path} is no schema")
        if "$ref" in schema:
            return self._reference(schema["$ref"], path, depth)
        if "const" in schema:
            return json_literal(schema["const"])
        if "enum" in schema:
            return " | ".join(json_literal(value) for value in _list(schema, "enum", path))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                ways = [
                    {**_without(schema, key), **way} if isinstance(way, dict) else way
                    for way in _list(schema, key, path)
                ]
                return " | ".join(
                    self._rule(self._visit(way, f"{path}.{key}[{number}]", depth + 1))
                    for number, way in enumerate(ways)
                )
        if "allOf" in schema:
            return self._visit(self._merged(schema, path, depth), path, depth + 1)
        kinds = schema.get("type", _kind(schema))
        if kinds is None:
            return "value"
        if isinstance(kinds, list):
            if not kinds:
                raise GrammarError(f"the JSON schema at {path} has no type")
            return " | ".join(self._rule(self._typed(kind, schema, path, depth)) for kind in kinds)
        return self._typed(kinds, schema, path, depth)

    def _typed(self, kind: Any, schema: dict[str, Any], path: str, depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case "string":
                return self._string(schema, path)
            case "integer":
                return self._integer(schema)
            case "number" | "boolean" | "null":
                return str(kind)
        raise GrammarError(
            f"the JSON schema at {path} has the unknown type {str(kind)[:40]!r}; known are {', '.join(_TYPES)}"
        )

    def _reference(self, ref: Any, path: str, depth: int) -> str:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise GrammarError(f"the reference {str(ref)[:60]!r} at {path} does not lead to a place within the schema")
        if ref not in self._refs:
            self._refs[ref] = name = f"ref{len(self._rules)}"
            self._rules[name] = ""  # it may lead back to itself
            self._rules[name] = self._visit(self._target(ref, path), ref, depth + 1)
        return self._refs[ref]

    def _target(self, ref: str, path: str) -> Any:
        target = self._schema
        for part in ref.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key[:6]) < len(target):
                target = target[int(key[:6])]
            else:
                raise GrammarError(f"the reference {ref[:60]!r} at {path} leads nowhere")
        return target

    def _merged(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """One object schema for all parts of an `allOf`."""
        made: dict[str, Any] = _without(schema, "allOf")
        for number, part in enumerate(_list(schema, "allOf", path)):
            seen = 0
            while isinstance(part, dict) and "$ref" in part:
                part, seen = self._target(str(part["$ref"]), path), seen + 1
                if seen > MAX_DEPTH:
                    raise GrammarError(f"the references at {path} go round in a circle")
            if isinstance(part, dict) and "allOf" in part and depth < MAX_DEPTH:
                part = self._merged(part, f"{path}.allOf[{number}]", depth + 1)
            if not isinstance(part, dict) or "anyOf" in part or "oneOf" in part:
                raise GrammarError(f"the JSON schema at {path}.allOf[{number}] cannot be merged with the others")
            for key, value in part.items():
                if key == "properties" and isinstance(value, dict):
                    made[key] = {**made.get(key, {}), **value}
                elif key == "required" and isinstance(value, list):
                    made[key] = [*made.get(key, []), *value]
                elif key == "additionalProperties" and made.get(key) is False:
                    pass
                else:
                    made[key] = value
        return made

    def _object(self, schema: dict[str, Any], path: str, depth: int) -> str:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise GrammarError(f"the properties at {path} are none")
        if not all(isinstance(name, str) for name in required):
            raise GrammarError(f"what is required at {path} are no names")
        properties = {**properties, **{name: {} for name in required if name not in properties}}
        if len(properties) > MAX_PROPERTIES:
            raise GrammarError(f"the object at {path} has {len(properties)} properties; {MAX_PROPERTIES} are allowed")
        more = schema.get("additionalProperties", not properties)
        extra = None
        if more is not False:
            value = (
                "value" if more is True else self._rule(self._visit(more, f"{path}.additionalProperties", depth + 1))
            )
            extra = "pair" if value == "value" else self._rule(f'string ws ":" ws {value} ws')
        # From the last property to the first: what may follow when something stands before it, and when nothing does.
        begun = self._rule(f'("," ws {extra})*') if extra else '""'
        fresh = self._rule(f'({extra} ("," ws {extra})*)?') if extra else '""'
        for name in reversed(properties):
            value = self._rule(self._visit(properties[name], f"{path}.properties.{name}"[:200], depth + 1))
            pair = self._rule(f'{json_literal(name)} ws ":" ws {value} ws')
            if name in required:
                fresh = self._rule(f"{pair} {begun}")
                begun = self._rule(f'"," ws {pair} {begun}')
            else:
                fresh = self._rule(f"{pair} {begun} | {fresh}")
                begun = self._rule(f'("," ws {pair})? {begun}')
        return f'"{{" ws {fresh} "}}"'

    def _array(self, schema: dict[str, Any], path: str, depth: int) -> str:
        items, fixed = schema.get("items", {}), schema.get("prefixItems")
        if isinstance(items, list):  # as older drafts have it
            items, fixed = {}, items
        if fixed is not None:
            if not isinstance(fixed, list):
                raise GrammarError(f"the prefixItems at {path} are no list")
            parts = [
                self._rule(self._visit(item, f"{path}.prefixItems[{number}]", depth + 1))
                for number, item in enumerate(fixed)
            ]
            return f'"[" ws {_COMMA.join(parts)} ws "]"' if parts else '"[" ws "]"'
        least, most = _bound(schema, "minItems", path) or 0, _bound(schema, "maxItems", path)
        if most == 0:
            return '"[" ws "]"'
        if most is not None and most < least:
            raise GrammarError(f"the array at {path} has at least {least} and at most {most} items")
        item = self._rule(self._rule(self._visit(items, f"{path}.items", depth + 1)) + " ws")
        rest = f'("," ws {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}' if most != 1 else ""
        body = f"{item} {rest}"
        return f'"[" ws {body} "]"' if least else f'"[" ws ({body})? "]"'

    def _string(self, schema: dict[str, Any], path: str) -> str:
        if "pattern" in schema:
            return f'"\\"" ({pattern_rule(str(schema["pattern"]))}) "\\""'
        if (form := str(schema.get("format"))) in FORMATS:
            return f'"\\"" {FORMATS[form]} "\\""'
        least, most = _bound(schema, "minLength", path) or 0, _bound(schema, "maxLength", path)
        if not least and most is None:
            return "string"
        if most is not None and most < least:
            raise GrammarError(f"the string at {path} has at least {least} and at most {most} characters")
        return f'"\\"" char{{{least},{"" if most is None else most}}} "\\""'

    def _integer(self, schema: dict[str, Any]) -> str:
        low, high = _integer_bound(schema, "inimum", 1), _integer_bound(schema, "aximum", -1)
        if low is not None and high is not None:
            if low > high:
                raise GrammarError(f"no integer is at least {low} and at most {high}")
            if high - low < MAX_VALUES:
                return " | ".join(f'"{number}"' for number in range(low, high + 1))
        if low is not None and low >= 0:
            return "whole" if low == 0 else "[1-9] [0-9]{0,15}"
        return "integer"


_COMMA = ' ws "," ws '


def _kind(schema: dict[str, Any]) -> str | None:
    """The type a schema speaks of when it does not name it."""
    for kind, keys in (("object", _OF_OBJECTS), ("array", _OF_ARRAYS), ("string", _OF_STRINGS)):
        if any(key in schema for key in keys):
            return kind
    return None


def _without(schema: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}


def _list(schema: dict[str, Any], key: str, path: str) -> list[Any]:
    found = schema[key]
    if not isinstance(found, list) or not found:
        raise GrammarError(f"the {key} at {path} is no list, or an empty one")
    return found


def _bound(schema: dict[str, Any], key: str, path: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_REPEAT:
        raise GrammarError(f"the {key} at {path} is {str(value)[:40]}; it may be 0 to {MAX_REPEAT}")
    return value


def _integer_bound(schema: dict[str, Any], name: str, inward: int) -> int | None:
    """`minimum` or `maximum`, or what `exclusive…` makes of it; None for what is no integer."""
    for key, step in ((f"m{name}", 0), (f"exclusiveM{name}", inward)):
        value = schema.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value + step
    return None

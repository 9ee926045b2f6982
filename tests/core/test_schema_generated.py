"""The generators: what they say of a schema, and that no schema makes them fail. The clients' own tests compile it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jan_core.schema import rust, typescript

NAMES = st.sampled_from(["core.Thread", "alpha.Thing", "alpha.Other", "a-b.string", "default.Option"])
WORDS = st.text(max_size=8) | st.sampled_from(
    ["type", "self", "a*/b", "a@b", "\0", 'quo"te', "back\\", "new\nline", "é", "\u2028", "0"]
)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "null"])
PLAIN: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda kind, about: {"type": kind, "description": about}, KINDS, WORDS),
    st.builds(lambda kinds: {"type": kinds}, st.lists(KINDS, min_size=1, max_size=3)),
    st.builds(lambda values: {"enum": values}, st.lists(WORDS | st.integers() | st.none(), min_size=1, max_size=4)),
    st.builds(lambda name: {"$ref": f"#/components/schemas/{name}"}, NAMES),
    st.sampled_from(
        [{}, True, False, {"$ref": "#/components/schemas/gone.Type"}, {"$ref": "https://example.org/type"}]
    ),
)


def _composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(members: dict[str, Any], required: int, extra: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": members,
            "required": list(members)[:required],
            **({} if extra is None else {"additionalProperties": extra}),
        }

    return st.one_of(
        st.builds(
            made, st.dictionaries(WORDS, inner, max_size=3), st.integers(0, 3), st.none() | st.booleans() | inner
        ),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda items: {"type": "array", "prefixItems": items}, st.lists(inner, max_size=3)),
    )


SCHEMAS = st.recursive(PLAIN, _composed, max_leaves=6)


def document(schemas: dict[str, Any], **methods: Any) -> dict[str, Any]:
    """A document of these components, with a method for each `(params, result)`."""
    return {
        "openrpc": "1.3.2",
        "info": {"title": "test", "version": "0"},
        "methods": [
            {
                "name": name,
                "summary": "Do it.",
                "params": [],
                "result": {"name": "result", "schema": result},
                "x-extension": "alpha",
                "x-params": params,
                "x-stream": {"schema": result},
            }
            for name, (params, result) in methods.items()
        ],
        "components": {"schemas": schemas},
        "x-events": [],
        "x-errors": [],
    }


def declared(code: str, name: str) -> str:
    """One declaration of generated code."""
    found = re.search(rf"^ *(?:export |pub )(?:interface|type|struct|enum) {name}\b.*?(?:^ *}}|;$)", code, re.M | re.S)
    assert found is not None, code
    return found[0]


@settings(max_examples=150, deadline=None)
@given(schemas=st.fixed_dictionaries({"core.Thread": SCHEMAS, "alpha.Thing": SCHEMAS, "alpha.Other": SCHEMAS}),
       params=SCHEMAS, result=SCHEMAS)  # fmt: skip
def test_whatever_a_schema_says_is_generated_in_one_piece(schemas: dict[str, Any], params: Any, result: Any) -> None:
    schemas |= {"a-b.string": {"type": "string"}, "default.Option": {"enum": ["a"]}}
    found = document(schemas, **{"alpha.do": (params, result)})
    for code in (typescript(found), rust(found)):
        assert "gone" not in code
        # Nothing that a schema says ends a comment or a string early: what is left without them is balanced.
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', "", code, flags=re.S)
        assert bare.count("{") == bare.count("}")
        assert bare.count("(") == bare.count(")")
        assert '"' not in bare
        assert "*/" not in bare
        assert "\0" not in code


@pytest.mark.parametrize(
    ("schema", "in_typescript", "in_rust"),
    [
        ({"type": "integer"}, "x: number", "pub x: i64"),
        ({"type": "integer", "minimum": 0}, "x: number", "pub x: u64"),
        ({"type": "array", "items": {"type": "string"}}, "x: string[]", "pub x: Vec<String>"),
        ({"type": "object"}, "x: { [name: string]: unknown }", "pub x: serde_json::Map<String, serde_json::Value>"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "x: string | null", "pub x: Option<String>"),
        ({"enum": ["a", "b"]}, 'x: "a" | "b"', "pub x: ThingX"),
        ({}, "x: unknown", "pub x: serde_json::Value"),
        ({"$ref": "#/components/schemas/core.Thread"}, "x: core.Thread", "pub x: super::core::Thread"),
    ],
)
def test_a_member_has_the_type_that_its_schema_says(schema: dict[str, Any], in_typescript: str, in_rust: str) -> None:
    thing = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    found = document({"alpha.Thing": thing, "core.Thread": {"type": "string"}})
    assert f"    {in_typescript};" in declared(typescript(found), "Thing")
    assert f"        {in_rust}," in declared(rust(found), "Thing")


def test_lists_of_strings_are_open_where_the_host_sends_them_and_closed_where_it_takes_them() -> None:
    mood = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    schemas = {"alpha.Ask": mood, "alpha.Told": mood}
    asked, told = ({"$ref": f"#/components/schemas/alpha.{name}"} for name in ("Ask", "Told"))
    found = document(schemas, **{"alpha.do": (asked, told)})
    assert 'mood: "good" | "bad";' in declared(typescript(found), "Ask")
    assert 'mood: Open<"good" | "bad">;' in declared(typescript(found), "Told")
    assert "Other(String)" not in declared(rust(found), "AskMood")
    assert "Other(String)" in declared(rust(found), "ToldMood")


def test_a_tagged_union_is_an_enum_whose_variants_have_their_members() -> None:
    kinds = {
        f"alpha.{name}": {
            "type": "object",
            "properties": {"kind": {"enum": [name.lower()]}, member: {"type": "number"}},
            "required": ["kind", member],
        }
        for name, member in (("Circle", "radius"), ("Square", "side"))
    }
    mapping = {name.rpartition(".")[2].lower(): f"#/components/schemas/{name}" for name in kinds}
    union = {
        "anyOf": [{"$ref": path} for path in mapping.values()],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }
    found = document(kinds, **{"alpha.draw": ({"type": "object"}, union)})
    assert "item: alpha.Circle | alpha.Square;" in typescript(found)
    assert 'kind: "circle";' in declared(typescript(found), "Circle")
    enum = re.sub(r"\s+", " ", rust(found))
    assert '#[serde(tag = "kind")] #[non_exhaustive] pub enum AlphaDrawItem {' in enum
    assert '#[serde(rename = "circle")] Circle { radius: f64, },' in enum
    assert "pub struct Circle" not in enum

"""JSON schemas as grammars: what fits the schema passes, what does not, does not; and no schema does harm."""

# ruff: noqa: E501 (a table is read across)
from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.gbnf import Gbnf
from jan_llamacpp.worker.gbnf_rules import GrammarError
from jan_llamacpp.worker.schema import JSON_OBJECT, schema_to_gbnf

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="utf-8", exclude_characters="\x7f")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def fits(schema: Any, value: Any) -> bool:
    return Gbnf(schema_to_gbnf(schema)).matches(json.dumps(value, ensure_ascii=False))


@given(JSON)
def test_an_empty_schema_lets_any_json_pass(value: Any) -> None:
    assert fits({}, value)
    assert fits({"type": "object"}, {"x": value})


@given(JSON)
def test_a_constant_is_itself_and_nothing_else(value: Any) -> None:
    assert fits({"const": value}, value)
    assert not fits({"const": value}, [value])


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), st.booleans(), max_size=6), st.data())
def test_names_of_any_characters_are_written_right_and_in_order(names: dict[str, bool], data: st.DataObject) -> None:
    schema = {"properties": {name: {"type": "boolean"} for name in names}, "required": [n for n in names if names[n]]}
    given = {name: True for name in names if names[name] or data.draw(st.booleans())}
    if names:
        assert fits(schema, given)
        assert not fits(schema, {**given, "more than there is": True})
        for name in schema["required"]:
            assert not fits(schema, {key: value for key, value in given.items() if key != name})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (JSON_OBJECT, [{}, {"a": [1.5e3, None, {"b": "\n\""}]}], [[], 1, "x"]),
        ({"type": "string"}, ["", "é\u2028🙂\\"], [1, None]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "a\n\t"], ["a", "abcd"]),
        ({"type": "integer"}, [0, -7, 123456], [1.5, "1"]),
        ({"type": "integer", "minimum": -2, "exclusiveMaximum": 2}, [-2, 0, 1], [-3, 2]),
        ({"type": "integer", "minimum": 1}, [1, 99], [0, -1]),
        ({"type": "number"}, [0.5, -1e10, 3], [True]),
        ({"type": ["null", "boolean"]}, [None, True], [0]),
        ({"enum": ["a\\b", 'q"', 3]}, ["a\\b", 'q"', 3], ["a"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, [[1], [1, 2, 3]], [[], [1] * 4, ["1"]]),
        ({"type": "array", "maxItems": 0}, [[]], [[1]]),
        ({"prefixItems": [{"type": "integer"}, {"type": "string"}]}, [[1, "a"]], [[1], ["a", 1]]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["x"]),
        ({"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}, [{"a": 1, "b": True}, {"b": False}], [{"b": 1}]),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]}, [{"a": 1}, {"a": 1, "b": 2}], [{"b": 2}]),
        ({"$ref": "#/$defs/string", "$defs": {"string": {"type": "integer"}}}, [1], ["x"]),
        ({"$defs": {"a": {"d": {"type": "integer"}}, "b": {"d": {"type": "null"}}}, "prefixItems": [{"$ref": "#/$defs/a/d"}, {"$ref": "#/$defs/b/d"}]}, [[1, None]], [[1, 1]]),
        ({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}, [{"next": {"next": None}}], [{"next": 1}]),
        ({"type": "string", "format": "date-time"}, ["2026-11-22T06:00:00Z"], ["2026-13-22T06:00:00Z"]),
        ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
    ],
)  # fmt: skip
def test_what_fits_passes_and_what_does_not_is_stopped(schema: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(schema, value)] == []
    assert [value for value in bad if fits(schema, value)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z]+$", r"^\d{3}-\d{4}$", "a|b", "^(ab|c)*d?$", r"^[^\s\"]+$", r"^\w+\\\.[\]\-x]$", "^.{2,4}$", r"^\u00e9\x41$",
        "^(?:a{2}){2,3}$", "", r'^"\n?$',
    ],
)  # fmt: skip
@given(st.data())
def test_a_pattern_is_found_in_what_passes(pattern: str, data: st.DataObject) -> None:
    grammar = Gbnf(schema_to_gbnf({"type": "string", "pattern": pattern}))
    allowed = st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" ")
    value = data.draw(
        st.from_regex(pattern, alphabet=allowed | st.just("\n"), fullmatch=pattern.startswith("^"))
        | st.text(allowed, max_size=5)
    )
    assert grammar.matches(json.dumps(value, ensure_ascii=False)) == bool(re.search(pattern.replace("$", r"\Z"), value, re.ASCII))  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "strnig"}, "unknown type"),
        ({"properties": {"a": {"items": 7}}}, r"\$.properties.a.items"),
        ([], "no schema"),
        (False, "no schema"),
        ({"$ref": "https://example.com/schema"}, "place within"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "begin with itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "begin with itself"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "deeper|circle|itself|merged"),
        ({"enum": []}, "empty"),
        ({"type": "array", "minItems": 10**9}, "minItems"),
        ({"type": "string", "maxLength": -1}, "maxLength"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "at least 5"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "no integer"),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"pattern": "(a"}, "too early|not closed"),
        ({"pattern": "a)"}, "not opened"),
        ({"pattern": "a{99999}"}, "2000"),
        ({"pattern": "((a{0,999}){0,999}){0,999}"}, "more than 2000"),
        ({"pattern": "(" * 500 + ")" * 500}, "groups"),
        ({"pattern": "\ud83d"}, "surrogate|character"),
        ({"properties": {str(i): {} for i in range(501)}}, "501 properties"),
        ({"const": "x" * 200_000}, "characters"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_refused_with_its_reason(schema: Any, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(GrammarError, match=why) as caught:
        Gbnf(schema_to_gbnf(schema))
    assert len(str(caught.value)) < 400
    assert time.monotonic() - began < 10


def test_a_schema_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(GrammarError, match="deep"):
        schema_to_gbnf(deep)


KEYWORDS = ["type", "properties", "items", "anyOf", "allOf", "enum", "const", "$ref", "pattern", "minItems", "maxItems",
            "minLength", "required", "additionalProperties", "prefixItems", "minimum", "maximum", "format", "$defs"]  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["object", "array", "string", "#", "#/$defs/a", "^a+$", "date"]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(ANYTHING)
def test_whatever_is_given_as_a_schema_is_a_grammar_or_a_typed_refusal(schema: Any) -> None:
    with contextlib.suppress(GrammarError):
        Gbnf(schema_to_gbnf(schema))

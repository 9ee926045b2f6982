"""Reading a list that anybody may have written."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.builtin import builtin_models
from jan_registry.document import MAX_BYTES, MAX_MODELS, Document, DocumentError, read

from jan_core.types import ModelRecord


def document(*models: Any, version: Any = 1) -> bytes:
    return json.dumps({"version": version, "models": models}).encode()


GOOD: dict[str, Any] = {
    "id": "org/model:3b",
    "name": "Model",
    "files": [{"name": "model.gguf", "url": "https://example.com/m.gguf", "sha256": "a" * 64, "size": 5}],
}


def test_a_good_list_is_read_with_its_digest() -> None:
    import hashlib

    body = document(GOOD, {"id": "b", "name": "B", "unknown": {"field": 1}})
    got = read(body, "https://list")
    assert [model.id for model in got.models] == ["org/model:3b", "b"]
    assert (got.skipped, got.refused, got.digest) == ([], 0, hashlib.sha256(body).hexdigest())


def test_what_a_list_says_of_its_own_trustworthiness_counts_for_nothing() -> None:
    [model] = read(document(GOOD | {"verification": "verified", "source": "bank"}), "https://list").models
    assert (model.verification, model.source) == ("unverified", "https://list")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": ""}, "id"),
        ({"id": "Upper"}, "id"),
        ({"id": "../x"}, "id"),
        ({"id": "a/../b"}, "id"),
        ({"id": "a" * 129}, "id"),
        ({"id": 5}, "Expected `str`"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"description": "bell\u0007"}, "description"),
        ({"parameters": -1}, "parameters"),
        ({"parameters": 2**60}, "parameters"),
        ({"parameters": 1.5}, "Expected `int`"),
        ({"tags": ["x"] * 65}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"files": [{"name": "../x"}]}, "plain file name"),
        ({"files": [{"name": "a/b"}]}, "plain file name"),
        ({"files": [{"name": "x.gguf", "sha256": "A" * 64}]}, "sha256"),
        ({"files": [{"name": "x.gguf", "size": -1}]}, "size"),
        ({"files": [{"name": "x.gguf", "url": "http://example.com/x"}]}, "https"),
        ({"files": [{"name": "x.gguf", "url": "https://u:p@example.com/x"}]}, "https"),
        ({"files": [{"name": "x.gguf", "url": "file:///etc/passwd"}]}, "https"),
        ({"files": [{"name": "x.gguf", "url": "https://[::1/x"}]}, "url"),
        ({"files": [{"name": "x.gguf"}, {"name": "X.gguf"}]}, "same name"),
        ({"extra": {"x": "y" * 20_000}}, "extra"),
        ({"verification": "blessed"}, "Invalid enum"),
    ],
)
def test_a_bad_record_is_left_out_and_named_and_the_others_stay(fields: dict[str, Any], reason: str) -> None:
    got = read(document(GOOD | fields, {"id": "good", "name": "Good"}), "s")
    assert [model.id for model in got.models] == ["good"]
    [skipped] = got.skipped
    assert skipped.index == 0
    assert reason in skipped.reason


def test_the_second_of_two_records_with_one_id_is_left_out() -> None:
    got = read(document(GOOD, GOOD | {"name": "Impostor"}), "s")
    assert [model.name for model in got.models] == ["Model"]
    assert got.skipped[0].index == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"\xff\xfe",
        document(GOOD, version=2),
        document(GOOD, version="1"),
        document(),
        document({"id": "Bad", "name": "x"}, 5, None),
        b'{"version": 1, "models": {}}',
        b'{"version": 1, "models": ' + b"[" * 100_000,
        b'{"version": 1, "models": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
        b'{"version": 1, "models": [' + b"0," * MAX_MODELS + b"0]}",
        b" " * (MAX_BYTES + 1),
    ],
)
def test_a_document_without_a_usable_record_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(DocumentError):
        read(body, "s")


def test_at_most_fifty_bad_records_are_named_but_all_are_counted() -> None:
    got = read(document(GOOD, *[{"id": "Bad"}] * 80), "s")
    assert (len(got.skipped), got.refused) == (50, 80)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
files = st.fixed_dictionaries(
    {"name": st.sampled_from(["m.gguf", "../x", "", "a b.gguf"]) | st.text(max_size=12)},
    optional={
        "url": st.sampled_from(["https://h/x", "http://h/x", "https://h:99999/", ""]) | st.text(max_size=30),
        "sha256": st.sampled_from(["", "a" * 64]) | st.text(max_size=64),
        "size": st.integers(-5, 2**70) | json_values,
    },
)
records = st.fixed_dictionaries(
    {"id": st.text(alphabet="abcA/.:-_\u00e9 ", max_size=12), "name": st.text(max_size=12)},
    optional={
        "description": st.text(max_size=40),
        "tags": st.lists(st.text(max_size=10), max_size=4),
        "files": st.lists(files, max_size=3),
        "parameters": st.integers() | st.floats(allow_nan=False),
        "extra": st.dictionaries(st.text(max_size=8), json_values, max_size=3),
        "verification": st.sampled_from(["verified", "unverified", "builtin", "x"]),
        "featured": st.booleans() | st.text(max_size=3),
    },
)


@given(st.lists(records | json_values, max_size=6))
def test_whatever_a_list_holds_only_records_that_keep_the_rules_come_through(models: list[Any]) -> None:
    try:
        got = read(document(*models), "s")
    except DocumentError:
        return
    assert isinstance(got, Document)
    assert got.refused + len(got.models) == len(models)
    assert len({model.id for model in got.models}) == len(got.models) > 0
    for model in got.models:
        assert model.verification == "unverified"
        assert model.id == model.id.lower()
        assert ".." not in model.id
        assert model.name.strip()
        for file in model.files:
            assert not set(file.name) & set("/\\:\0")
            assert file.url == "" or file.url.startswith("https://")
            assert 0 <= file.size < 2**53
    # What came through comes through again: the cache reads it with the same rules.
    again = read(document(*msgspec.to_builtins(got.models)), "s")
    assert again.models == got.models


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_refused(body: bytes) -> None:
    with contextlib.suppress(DocumentError):
        assert read(body, "s").models


def test_the_built_in_list_keeps_the_rules_of_any_other() -> None:
    models = builtin_models()
    got = read(document(*msgspec.to_builtins(models)), "registry")
    assert got.refused == 0
    assert [model.id for model in got.models] == [model.id for model in models]
    assert all(isinstance(model, ModelRecord) and model.verification == "builtin" for model in models)
    assert models[0].id == "jan-tiny"

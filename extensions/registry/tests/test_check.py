"""What a record must hold, and that nothing from outside gets past it, or makes it fail otherwise than by saying so."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import COLLECTIONS, canonical
from jan_registry.collections.check import MAX_BYTES, check

SHA = "0123456789abcdef" * 4
FILE = {
    "path": "tiny-Q4_K_M.gguf",
    "size": 20_000_000,
    "sha256": SHA,
    "pieces": {"len": 8 << 20, "n": 3, "sha256": SHA, "target": f"pieces/{SHA}.bin"},
    "sources": [
        {"kind": "hf", "repo": "owner/tiny", "rev": "a" * 40, "path": "gguf/tiny Q4.gguf"},
        {"kind": "oci", "ref": f"registry.example/owner/tiny@sha256:{SHA}"},
        {"kind": "https", "url": "https://models.example/tiny.gguf"},
        {"kind": "from-the-future", "url": "https://models.example/tiny"},
    ],
}
GOOD: dict[str, list[dict[str, Any]]] = {
    "models": [
        {"id": "jan-tiny", "name": "Jan Tiny"},
        {
            "id": "owner/tiny:1b",
            "name": "Tiny 1B — 小さい",
            "description": "Two\nlines.",
            "license": "apache-2.0",
            "gated": "manual",
            "params": 1_000_000_000,
            "ctx": 4096,
            "caps": ["tools"],
            "files": [FILE],
            "variants": [{"id": "q4_k_m", "quant": "Q4_K_M", "files": [0]}],
            "requires": {"app": ">=0.3,<2", "engine": {"llamacpp": ">=b5000"}},
            "target": [{"field": "locale", "op": "in", "values": ["zh-CN"]}],
            "publisher_sig": {"kind": "oms", "url": "https://models.example/model.sig"},
            "deprecated": {"since": "2026-01-31", "replaced_by": "owner/small"},
        },
    ],
    "featured": [{"id": "default", "models": ["jan-tiny"], "priority": -1}],
    "flags": [
        {"id": "registry.phase", "kind": "flag", "value": "fallback", "rules": [{"value": "mixed", "percent": 5}]},
        {"id": "order", "kind": "experiment", "branches": [{"id": "as-is"}, {"id": "new", "slot": "default-b"}]},
    ],
    "revocations": [{"id": "r-1", "reason": "It was tampered with.", "sha256": SHA, "at": "2026-02-28"}],
    "stats": [{"id": "jan-tiny", "downloads": 2**53 - 1}],
}
CASES = [(name, record) for name, records in GOOD.items() for record in records]
WRONG: list[tuple[str, int, list[str | int], Any, str]] = [
    ("models", 0, ["id"], "Jan-Tiny", "id: must be 1 to 128 lower-case"),
    ("models", 0, ["id"], "a..b", "id: must be"),
    ("models", 0, ["id"], "mode\u0301le", "id: must be"),
    ("models", 0, ["name"], "", "name: must not be empty"),
    ("models", 0, ["name"], "two\nlines", "name: must be one line"),
    ("models", 0, ["name"], "evil\u202efdp.gguf", "name: has control characters"),
    ("models", 0, ["name"], "x" * 201, "name: longer than 200"),
    ("models", 0, ["name"], 7, "name: Expected `str`, got `int`"),
    ("models", 0, ["schema"], 2, "schema: this program reads 1"),
    ("models", 1, ["params"], 1.5, "params: must be a whole number"),
    ("models", 1, ["params"], 2**53, "params: must be exact in JSON"),
    ("models", 1, ["ctx"], -1, "ctx: must be 0 or more"),
    ("models", 1, ["gated"], "yes", "gated: must be"),
    ("models", 1, ["tags"], ["ok", ""], "tags[1]: must not be empty"),
    ("models", 1, ["files", 0, "path"], "../tiny.gguf", "files[0].path: must be a plain file name"),
    ("models", 1, ["files", 0, "path"], "COM1.gguf", "files[0].path: must be a plain file name"),
    ("models", 1, ["files", 0, "path"], ".gguf", "files[0].path: must be a plain file name"),
    ("models", 1, ["files", 0, "sha256"], SHA.upper(), "files[0].sha256: must be 64"),
    ("models", 1, ["files"], [FILE, {"path": "TINY-q4_k_m.gguf"}], "files: two have the same path"),
    ("models", 1, ["files", 0, "pieces", "n"], 2, "files[0].pieces.n: must be the file's size"),
    ("models", 1, ["files", 0, "pieces", "len"], 0, "files[0].pieces.len: must be"),
    ("models", 1, ["files", 0, "pieces", "target"], "../x", "files[0].pieces.target: must be"),
    ("models", 1, ["files", 0, "sources", 0, "path"], "a/../../b", "files[0].sources[0].path: must be a path inside"),
    ("models", 1, ["files", 0, "sources", 0, "rev"], "../main", "files[0].sources[0].rev: must be a commit"),
    ("models", 1, ["files", 0, "sources", 0, "repo"], "a/b/c", "files[0].sources[0].repo: must be a repository"),
    ("models", 1, ["files", 0, "sources", 2, "url"], "http://models.example/x", "sources[2].url: must be https"),
    ("models", 1, ["files", 0, "sources", 2, "url"], "https://me:pw@models.example/x", "sources[2].url: must be https"),
    ("models", 1, ["files", 0, "sources", 3, "url"], "file:///etc/passwd", "sources[3].url: must be https"),
    ("models", 1, ["variants", 0, "files"], [1], "variants[0].files: must be places in the list of 1 files"),
    ("models", 1, ["variants", 0, "files"], [-1], "variants[0].files: must be places"),
    ("models", 1, ["variants", 0, "files"], [], "variants[0].files: must name at least one"),
    ("models", 1, ["variants", 0, "id"], "a/b", "variants[0].id: must be"),
    ("models", 1, ["requires", "app"], "0.3", "requires.app: must be a range"),
    ("models", 1, ["target", 0, "values"], [], "target[0].values: must be 1 to 256"),
    ("models", 1, ["publisher_sig", "url"], "ftp://x", "publisher_sig.url: must be https"),
    ("models", 1, ["deprecated", "since"], "2026-02-30", "deprecated.since: must be a date"),
    ("models", 0, ["whatever"], {"\U0001f600": 1}, "Basic Multilingual Plane"),
    ("models", 0, ["whatever"], 0.5, "whatever: must be a whole number"),
    ("featured", 0, ["models"], ["a", "a"], "models: two have the same id"),
    ("flags", 0, ["rules", 0, "percent"], 101, "rules[0].percent: must be 0 to 100"),
    ("flags", 0, ["value"], None, "value: Expected `bool | int | str`, got `null`"),
    ("flags", 0, ["kind"], "wish", "kind: Invalid value 'wish'"),
    ("flags", 1, ["branches"], [{"id": "one"}], "branches: must be 2 to 16"),
    ("flags", 1, ["branches", 1, "id"], "as-is", "branches: two have the same id"),
    ("flags", 1, ["branches", 1, "ratio"], 0, "branches[1].ratio: must be"),
    ("flags", 1, ["state"], "going", "state: must be running"),
    ("flags", 1, ["metric"], "clicks", "metric: must be"),
    ("revocations", 0, ["sha256"], "", "sha256: must be there, or model"),
    ("revocations", 0, ["reason"], " ", "reason: must not be empty"),
    ("revocations", 0, ["at"], "yesterday", "at: must be a date"),
    ("stats", 0, ["downloads"], -1, "downloads: must be 0 or more"),
]


@pytest.mark.parametrize(("name", "record"), CASES)
def test_a_good_record_is_taken(name: str, record: dict[str, Any]) -> None:
    value = check(name, json.dumps(record).encode())
    assert isinstance(value, COLLECTIONS[name])
    assert msgspec.to_builtins(value) == record


@pytest.mark.parametrize(("name", "number", "path", "value", "reason"), WRONG)
def test_a_bad_record_is_refused_with_field_and_reason(
    name: str, number: int, path: list[str | int], value: Any, reason: str
) -> None:
    record = json.loads(json.dumps(GOOD[name][number]))
    place: Any = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError) as refused:
        check(name, json.dumps(record).encode())
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "required field `id`"),
        (b'{"id":"a","name":"\\ud800"}', "not JSON"),
        (b'{"id":"a","name":"\xff"}', "not UTF-8"),
        (b'{"id":"a","name":"b","x":1e999}', "out of range"),
        (b'{"id":"a","name":"b","x":' + b"9" * 5000 + b"}", "record: Integer value out of range"),
        (b'{"id":"a","name":"b","x":' + b"[" * 13 + b"]" * 13 + b"}", "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (MAX_BYTES + 1), "larger than"),
    ],
    ids=range(10),
)
def test_what_is_no_record_is_refused_with_its_reason(record: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check("models", record)


def test_a_field_from_the_future_is_passed_over() -> None:
    assert check("stats", b'{"id":"a","stars":{"of":["five"]}}') == check("stats", b'{"id":"a"}')


def test_an_unknown_collection_is_refused() -> None:
    with pytest.raises(ValueError, match="collection: must be one of models"):
        check("wishes", b"{}")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good record with one thing in it replaced by anything, added or taken away."""
    name, record = draw(st.sampled_from(CASES))
    record = json.loads(json.dumps(record))
    place: Any = record
    while True:
        steps = list(place) if isinstance(place, dict) else list(range(len(place)))
        step = draw(st.sampled_from(steps)) if steps else None
        if step is None or not isinstance(place[step], dict | list) or draw(st.booleans()):
            break
        place = place[step]
    match draw(st.sampled_from(["replace", "add", "remove"])):
        case "remove" if step is not None:
            del place[step]
        case "add" if isinstance(place, dict):
            place[draw(st.text())] = draw(PLAIN)
        case _ if step is not None:
            place[step] = draw(PLAIN)
    return name, json.dumps(record).encode()


def _checked(name: str, record: bytes) -> tuple[Any, str]:
    try:
        return check(name, record), ""
    except ValueError as refused:
        return None, str(refused)


def _is_taken_or_refused(name: str, record: bytes) -> None:
    value, said = _checked(name, record)
    if value is None:
        assert re.fullmatch(r".+?: .+", said)
        assert said.isprintable()
        return
    plain = msgspec.to_builtins(value)
    written = canonical(plain)
    assert written == rfc8785.dumps(plain)
    again = check(name, written)
    assert again == value
    assert canonical(msgspec.to_builtins(again)) == written


@given(spoiled())
def test_a_spoiled_record_is_refused_or_has_one_stable_form(case: tuple[str, bytes]) -> None:
    _is_taken_or_refused(*case)


@given(st.sampled_from(list(COLLECTIONS)), PLAIN)
def test_any_json_is_refused_or_has_one_stable_form(name: str, value: Any) -> None:
    _is_taken_or_refused(name, json.dumps(value).encode())


@given(st.sampled_from(CASES), st.data())
def test_any_bytes_are_refused_or_have_one_stable_form(case: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    name, record = case
    content = bytearray(json.dumps(record, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _is_taken_or_refused(name, bytes(content))
    _is_taken_or_refused(name, data.draw(st.binary(max_size=64)))

"""Snapshots and deltas as rows: whatever is edited, a delta's outcome is the whole snapshot's, byte for byte."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_registry.collections import canonical, digest, snapshot
from jan_registry.signed import rows
from jan_registry.signed.delta import Delta, read_delta, read_snapshot, unpack
from jan_registry.signed.fetching import TooLarge
from jan_registry.signed.store import HubStore

bmp = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=12)
everything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | everything,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(bmp, inner, max_size=4),
    max_leaves=12,
)
records = st.dictionaries(bmp, values, max_size=4)
catalogues = st.dictionaries(everything, records, max_size=12)


def made(catalogue: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    return {id: canonical(fields | {"id": id}) for id, fields in sorted(catalogue.items())}


def delta_of(old: dict[str, bytes], new: dict[str, bytes]) -> bytes:
    upsert = [json.loads(data) for id, data in new.items() if old.get(id) != data]
    gone = [id for id in old if id not in new]
    return json.dumps({"collection": "models", "from": 1, "to": 2, "upsert": upsert, "delete": gone}).encode()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(old=catalogues, new=catalogues, data=st.data())
def test_a_delta_ends_in_the_same_bytes_as_the_whole_snapshot(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(old)))) if old else set()
    before, after = made(old), made({id: old[id] for id in kept} | new)
    wanted = digest(snapshot(after.values()))
    store = HubStore(tmp_path / "hub")
    with store.db.write() as db:
        rows.drop(db, "models")
        rows.replace(db, "models", read_snapshot(snapshot(before.values())))
        assert rows.digest(db, "models") == (digest(snapshot(before.values())), len(before))
        change = rows.apply(db, "models", read_delta(delta_of(before, after), "models", 1, 2))
        assert rows.digest(db, "models") == (wanted, len(after))
    assert store.records("models") == list(after.values())
    assert change.created == after.keys() - before.keys()
    assert change.deleted == before.keys() - after.keys()
    assert change.updated == {id for id in before.keys() & after.keys() if before[id] != after[id]}

    with store.db.write() as db:
        rows.replace(db, "models", list(before.items()))
        whole = rows.replace(db, "models", read_snapshot(snapshot(after.values())))
        assert rows.digest(db, "models") == (wanted, len(after))
    assert store.records("models") == list(after.values())
    assert whole == change
    store.close()


@given(catalogues)
def test_records_are_read_back_as_the_canonical_bytes_they_were(catalogue: dict[str, Any]) -> None:
    records = made(catalogue)
    assert all(data == rfc8785.dumps(json.loads(data)) for data in records.values())
    assert read_snapshot(snapshot(records.values())) == list(records.items())


@given(catalogues)
def test_records_of_a_delta_become_canonical_however_they_are_written(catalogue: dict[str, Any]) -> None:
    records = made(catalogue)
    body = {"upsert": [json.loads(data) for data in records.values()], "delete": [], "to": 2, "from": 1}
    loose = json.dumps(body | {"collection": "models"}, indent=1).encode()
    assert read_delta(loose, "models", 1, 2).upsert == list(records.items())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"records":{}}',
        b'{"records":[{}]}',
        b'{"records":[{"id":1}]}',
        b'{"records":[{"id":"a"}]} ',
        b'{"records":[{"id":"a"}],"more":1}',
        b'{"records": [{"id":"a"}]}',
        b'{"records":[{"id": "a"}]}',
        b'{"records":[{"id":"a","a":1}]}',
        b'{"records":[{"id":"a"},{"id":"a"}]}',
        b'{"records":[{"id":"b"},{"id":"a"}]}',
        b'{"records":[{"id":"a","id":"a"}]}',
        b'{"records":[{"id":"\\ud800"}]}',
        b'{"records":[{"id":"a\xff"}]}',
        b'{"records":[{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
)
def test_a_snapshot_that_is_not_canonical_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_snapshot(content)


def test_a_snapshot_without_records_is_one() -> None:
    assert read_snapshot(b'{"records":[]}') == []


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_a_delta_of_any_bytes_is_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_delta(content, "models", 1, 2), Delta)


@pytest.mark.parametrize("change", [{"collection": "flags"}, {"from": 2}, {"to": 3}, {"upsert": {}}, {"delete": [1]}])
def test_a_delta_of_something_else_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"collection": "models", "from": 1, "to": 2, "upsert": [], "delete": []}
    assert read_delta(json.dumps(good).encode(), "models", 1, 2) == Delta([], [])
    with pytest.raises(ValueError, match=r"."):
        read_delta(json.dumps(good | change).encode(), "models", 1, 2)


def test_gzip_is_undone_once_or_twice_or_not_at_all() -> None:
    for packed in (b"{}", gzip.compress(b"{}"), gzip.compress(gzip.compress(b"{}"))):
        assert unpack(packed, 100) == b"{}"


def test_gzip_that_becomes_too_much_is_stopped_before_it_is_made() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(TooLarge):
        unpack(bomb, 1000)
    with pytest.raises(TooLarge):
        unpack(gzip.compress(bomb), 1_000_000)
    with pytest.raises(TooLarge):
        unpack(b"x" * 101, 100)
    assert unpack(gzip.compress(b"x" * 100), 100) == b"x" * 100


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b + b"x", lambda b: b[:2] + b"zz" + b[4:]]
)
def test_gzip_that_is_damaged_is_refused(damage: Any) -> None:
    with pytest.raises(ValueError, match="gzip"):
        unpack(damage(gzip.compress(b"x" * 1000 + bytes(range(256)))), 10_000)


def test_ids_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    ids = ["a", "a/b", "a\x00", "Z", "é", "\uffff", "\U00010000"]
    in_order = sorted(ids, key=str.encode)
    content = snapshot(canonical({"id": id}) for id in in_order)
    store = HubStore(tmp_path / "hub")
    with store.db.write() as db:
        rows.replace(db, "models", read_snapshot(content))
        assert rows.digest(db, "models") == (digest(content), len(ids))
    store.close()

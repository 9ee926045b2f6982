"""Looking for models by words: the index in SQLite finds what a plain scan finds."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_registry.collections import Record, Stats, canonical
from jan_registry.search import COUNT_LIMIT, _place, find, index, scan
from jan_registry.signed.store import SCHEMA
from msgspec import to_builtins

from jan_core.types import ModelRecord

from .hubmaker import model

NAMES = ["qwen2.5-7b", "llama-3.2-3b", "Ünïcode-模型", "phi_4 mini", "c++", 'quo"te', "a", "jan-v3.5-4b-it", "%_like"]


def database() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(SCHEMA)
    return db


def put(db: sqlite3.Connection, *models: tuple[str, str, list[str]], **downloads: int) -> None:
    for id, name, tags in models:
        record = canonical(to_builtins(Record(id=id, name=name, tags=tags)))
        db.execute("INSERT OR REPLACE INTO record VALUES ('models', ?, ?)", [id, record])
    for id, count in downloads.items():
        stats = canonical(to_builtins(Stats(id=id, downloads=count)))
        db.execute("INSERT OR REPLACE INTO record VALUES ('stats', ?, ?)", [id, stats])


def test_a_word_may_stand_anywhere_and_a_short_one_must_begin_a_word() -> None:
    db = database()
    put(db, ("org/qwen2.5-7b", "Qwen 2.5 7B", ["chat"]), ("org/llama-70b", "Llama 70B", ["chat"]))
    index(db, None)
    assert find(db, "wen2", 10, 0) == (["org/qwen2.5-7b"], 1)
    assert find(db, "7b", 10, 0)[0] == ["org/qwen2.5-7b"]
    assert sorted(find(db, "7", 10, 0)[0]) == ["org/llama-70b", "org/qwen2.5-7b"]
    assert find(db, "0b", 10, 0) == ([], 0)
    assert find(db, "CHAT qwen 7b", 10, 0)[0] == ["org/qwen2.5-7b"]


def test_what_more_people_download_comes_first_then_the_alphabet() -> None:
    db = database()
    put(db, *((name, name, ["gguf"]) for name in ("delta", "alpha", "charlie", "bravo")), bravo=10_000, charlie=90)
    index(db, None)
    assert find(db, "gguf", 10, 0)[0] == ["bravo", "charlie", "alpha", "delta"]
    assert find(db, "", 2, 1) == (["charlie", "alpha"], 4)
    put(db, alpha=10**9)
    index(db, ["alpha"])
    assert find(db, "gguf", 10, 0)[0] == ["alpha", "bravo", "charlie", "delta"]


def test_pages_do_not_overlap_and_the_total_is_counted_up_to_a_limit() -> None:
    db = database()
    put(db, *((f"m{i:04}", "Same", ["gguf"]) for i in range(COUNT_LIMIT + 50)))
    index(db, None)
    pages = [find(db, "gguf", 100, offset) for offset in range(0, COUNT_LIMIT + 50, 100)]
    ids = [id for page, _ in pages for id in page]
    assert len(set(ids)) == COUNT_LIMIT + 50
    assert pages[0][1] == COUNT_LIMIT
    assert pages[-1][1] == COUNT_LIMIT + 50
    assert find(db, "gguf", 100, 99_000) == ([], COUNT_LIMIT)


def test_thousands_that_begin_alike_have_places_near_each_other() -> None:
    db = database()
    put(db, *((f"maker/qwen2.5-{i}b", "Same", []) for i in range(5000)), ("maker/aaa", "A", []), ("maker/zzz", "Z", []))
    index(db, None)
    for i in range(5000, 5050):
        put(db, (f"maker/qwen2.5-{i}b", "Same", []))
    index(db, [f"maker/qwen2.5-{i}b" for i in range(5000, 5050)])
    first, total = find(db, "", 1, 0)
    assert (first, total) == (["maker/aaa"], COUNT_LIMIT)
    assert find(db, "", 1, 5051)[0] == ["maker/zzz"]
    places = db.execute("SELECT rowid, id FROM entry WHERE id LIKE 'maker/qwen%'").fetchall()
    assert sum(place == _place(id, 0) for place, id in places) > 0.95 * len(places)  # few had to look for another


def test_changed_and_deleted_models_are_found_as_they_are_now() -> None:
    db = database()
    put(db, ("one", "First thing", []), ("two", "Second thing", []))
    index(db, None)
    put(db, ("one", "Third thing", []))
    db.execute("DELETE FROM record WHERE id = 'two'")
    index(db, ["one", "two", "never-there"])
    assert find(db, "thing", 10, 0)[0] == ["one"]
    assert find(db, "first", 10, 0)[0] == find(db, "second", 10, 0)[0] == []
    assert find(db, "third", 10, 0)[0] == ["one"]
    db.execute("INSERT INTO words(words) VALUES ('integrity-check')")


words = st.text(st.sampled_from('aAbc1 23.-_"%*+ü模'), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.lists(st.sampled_from(NAMES) | words, min_size=1, max_size=12),
    query=st.lists(
        st.sampled_from(["qwen", "3b", "模", "模型", "c+", "++", '"te', "j", "%_", "ini"]) | words, max_size=3
    ),
)
def test_the_index_finds_what_a_scan_finds(names: list[str], query: list[str]) -> None:
    db = database()
    put(db, *((f"id{at}", name, []) for at, name in enumerate(names)))
    index(db, None)
    text = " ".join(query)
    models = [ModelRecord(f"id{at}", name) for at, name in enumerate(names)]
    ids, total = find(db, text, 100, 0)
    assert sorted(ids) == sorted(model.id for model in scan(models, text))
    assert total == len(ids)


@pytest.mark.parametrize("text", ["\0", "'", '"', "*", "a" * 1000, "NEAR(a b)", "OR", "x AND", "-x", "^x", "\ud800"])
def test_no_text_is_a_query_of_the_database_s_own_language(text: str, tmp_path: Path) -> None:
    db = database()
    put(db, ("one", "Or near", []))
    index(db, None)
    if text.encode("utf-8", "ignore") == b"":
        return
    find(db, text, 10, 0)


def test_numbers_that_change_move_their_models(tmp_path: Path) -> None:
    from jan_registry.signed.folder import FolderFetch
    from jan_registry.signed.store import HubStore
    from jan_registry.signed.sync import sync

    from .hubmaker import Hub

    hub = Hub(tmp_path)
    hub.models("alpha", "bravo").set("stats", [{"id": "bravo", "downloads": 9}]).publish()
    store = HubStore(tmp_path / "store")

    def found() -> list[str]:
        sync(store, FolderFetch(hub.tree), hub.root, now=time.time, on_models=index)
        with store.db.read() as db:
            return find(db, "", 10, 0)[0]

    assert found() == ["bravo", "alpha"]
    hub.set("stats", [{"id": "bravo", "downloads": 9}, {"id": "alpha", "downloads": 99}]).publish()
    assert found() == ["alpha", "bravo"]
    store.close()


@pytest.mark.parametrize("changed", [3, 120, 150], ids=["a few", "most", "all"])
def test_an_index_that_was_brought_up_to_date_is_the_one_that_is_built_anew(changed: int) -> None:
    def stored(db: sqlite3.Connection) -> list[list[tuple[str, ...]]]:
        entries = db.execute("SELECT id, text FROM entry ORDER BY id").fetchall()
        return [entries, db.execute("SELECT sha256, id FROM file ORDER BY sha256, id").fetchall()]

    def hold(db: sqlite3.Connection, id: str, **fields: Any) -> None:
        record = canonical(model(id, **fields))
        db.execute("INSERT OR REPLACE INTO record (coll, id, data) VALUES ('models', ?, ?)", [id, record])

    db, ids = database(), [f"maker/model-{number}" for number in range(150)]
    for id in ids:
        hold(db, id)
    index(db, None)
    for id in ids[1:changed]:
        hold(db, id, name="Another", files=model(f"{id}, repaired")["files"])
    db.execute("DELETE FROM record WHERE id = ?", [ids[0]])
    index(db, ids[:changed])
    updated, found = stored(db), find(db, "another", 200, 0)
    index(db, None)
    assert stored(db) == updated
    assert find(db, "another", 200, 0) == found
    assert found[1] == changed - 1
    for table in ("words", "starts"):
        db.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")

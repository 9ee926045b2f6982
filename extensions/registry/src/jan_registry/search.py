"""Looking for models by words: an index in SQLite for a hub's thousands, a plain scan for a list in memory.

A word of three or more characters may stand anywhere in a model's id, name, publisher or tags; a shorter one must
begin a word there. Case does not count. What more people download comes first, then roughly the alphabet:
that order is the index's own (`entry.rowid`), so that the first page of a word that every model has costs no sorting.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jan_core.types import ModelRecord

from .collections import Record, Stats

if TYPE_CHECKING:
    import sqlite3

__all__ = ["COUNT_LIMIT", "find", "index", "scan"]

COUNT_LIMIT = 1000
"""How far matches are counted: the exact number of thousands of them is not worth the time."""

_LEVELS = 256
_ORDER = "0123456789abcdefghijklmnopqrstuvwxyz"
_LETTER_BITS, _LETTERS, _LOT_BITS = 6, 6, 18  # with a byte for the level these are 62 bits, and a rowid has 63
_NOT_WORD = re.compile(r"[\W_]+")

_record = msgspec.json.Decoder(Record)
_stats = msgspec.json.Decoder(Stats)


def index(db: sqlite3.Connection, ids: Iterable[str] | None) -> None:
    """Bring the index up to the tables it is made of, in their transaction. `ids`: the models (or numbers of models)
    that changed or went; None: all of them."""
    ids = None if ids is None else set(ids)
    if ids is None or _most(db, ids):
        for table in ("words", "starts"):
            # Not dropped row by row: an index with external content forgets its rows all at once.
            db.execute(f"INSERT INTO {table}({table}) VALUES ('delete-all')")
        db.execute("DELETE FROM entry")
        db.execute("DELETE FROM file")
        rows = db.execute("SELECT id, data FROM record WHERE coll = 'models'").fetchall()
        numbers = dict(db.execute("SELECT id, data FROM record WHERE coll = 'stats'"))
        _insert(db, [(id, bytes(data), numbers.get(id)) for id, data in rows], fresh=True)
        return
    changed: list[tuple[str, bytes, bytes | None]] = []
    # All at once: their hashes may be others now, and by its id alone a file is found by reading all.
    db.execute("DELETE FROM file WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))])
    for id in ids:
        _remove(db, id)
        row = db.execute("SELECT data FROM record WHERE coll = 'models' AND id = ?", [id]).fetchone()
        if row is not None:
            number = db.execute("SELECT data FROM record WHERE coll = 'stats' AND id = ?", [id]).fetchone()
            changed.append((id, bytes(row[0]), bytes(number[0]) if number else None))
    _insert(db, changed, fresh=False)


def _most(db: sqlite3.Connection, ids: set[str]) -> bool:
    """Whether so many changed that building all anew takes less time than taking them out and putting them back."""
    return len(ids) > 100 and 3 * len(ids) > db.execute("SELECT count(*) FROM entry").fetchone()[0]


def find(db: sqlite3.Connection, text: str, limit: int, offset: int) -> tuple[list[str], int]:
    """The ids of the models that have all words of `text`, and how many there are (counted up to COUNT_LIMIT)."""
    source, conditions, values = _condition(text.casefold().split())
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    key = f"{source.split()[0]}.rowid"
    page = db.execute(
        f"SELECT entry.id FROM {source}{where} ORDER BY {key} LIMIT ? OFFSET ?", [*values, limit, offset]
    ).fetchall()
    total = offset + len(page)
    if len(page) == limit or (offset and not page):
        counted = db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {source}{where} LIMIT {COUNT_LIMIT})", values)
        total = max(total if page else 0, counted.fetchone()[0])
    return [id for (id,) in page], total


def scan(models: Sequence[ModelRecord], text: str) -> list[ModelRecord]:
    """The same for a list in memory, whose own order stays."""
    words = text.casefold().split()
    return [model for model in models if _has(_text_of(model.id, model.name, model.publisher, model.tags), words)]


def _has(text: str, words: list[str]) -> bool:
    spaced = _spaced(text)
    return all(f" {word}" in spaced if _short(word) else word in text for word in words)


def _short(word: str) -> bool:
    """Whether a word is looked for at the beginning of words only."""
    return len(word) <= 2 and not _NOT_WORD.search(word)


def _condition(words: list[str]) -> tuple[str, list[str], list[Any]]:
    """What to select from, under which conditions, with which values. The trigram index finds candidates; what it says
    of a longer word is checked in the text itself."""
    values = [f" {word}" if _short(word) else word for word in words]
    checks = ["instr(entry.text, ?) > 0"] * len(values)
    grams = {gram for value in values for gram in _grams(value)}
    if any(len(word) > 2 for word in words):
        match = " AND ".join(map(_quoted, sorted(grams)))
        return "words JOIN entry ON entry.rowid = words.rowid", ["words MATCH ?", *checks], [match, *values]
    if words and all(map(_short, words)):
        match = " AND ".join(f"{_quoted(word)}*" for word in words)
        return "starts JOIN entry ON entry.rowid = starts.rowid", ["starts MATCH ?", *checks], [match, *values]
    return "entry", checks, values


def _grams(value: str) -> list[str]:
    """Three characters each, from the beginning, the middle and the end: all others would find few candidates less, and
    each costs the reading of a long list."""
    last = len(value) - 3
    return [value[at : at + 3] for at in sorted({0, last // 2, last})] if last >= 0 else []


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _insert(db: sqlite3.Connection, rows: list[tuple[str, bytes, bytes | None]], *, fresh: bool) -> None:
    entries: list[tuple[int, str, str]] = []
    files: list[tuple[str, str]] = []
    taken: set[int] = set()
    for id, data, number in rows:
        record = _record.decode(data)
        text = _indexed(_text_of(record.id, record.name, record.publisher, record.tags))
        place = _place(id, _stats.decode(number).downloads if number else 0)
        while place in taken or (
            not fresh and db.execute("SELECT 1 FROM entry WHERE rowid = ?", [place]).fetchone() is not None
        ):
            place += 1
        taken.add(place)
        entries.append((place, id, text))
        files += [(file.sha256, id) for file in record.files if file.sha256]
    entries.sort()  # a tree that is filled in its own order stays small
    db.executemany("INSERT INTO entry VALUES (?, ?, ?)", entries)
    for table in ("words", "starts"):
        db.executemany(f"INSERT INTO {table}(rowid, text) VALUES (?, ?)", ((place, text) for place, _, text in entries))
    db.executemany("INSERT OR IGNORE INTO file VALUES (?, ?)", files)


def _remove(db: sqlite3.Connection, id: str) -> None:
    row = db.execute("SELECT rowid, text FROM entry WHERE id = ?", [id]).fetchone()
    if row is None:
        return
    place, text = row
    for table in ("words", "starts"):
        db.execute(f"INSERT INTO {table}({table}, rowid, text) VALUES ('delete', ?, ?)", [place, text])
    db.execute("DELETE FROM entry WHERE rowid = ?", [place])


def _place(id: str, downloads: int) -> int:
    """Where a model stands in the order: by 256 levels of how often it is downloaded, then by how its name begins, then
    by lot: a publisher may have thousands that begin alike, and each needs a place near the others."""
    place = _LEVELS - 1 - min(_LEVELS - 1, int(8 * math.log2(1 + max(0, downloads))))
    name = id.rpartition("/")[2]
    for character in name[:_LETTERS].ljust(_LETTERS, "\0"):
        place = place << _LETTER_BITS | (_ORDER.find(character) + 1)
    lot = int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big") >> (32 - _LOT_BITS)
    return place << _LOT_BITS | lot


def _text_of(id: str, name: str, publisher: str, tags: Sequence[str]) -> str:
    return "\n".join([id, name, publisher, *tags]).casefold()


def _indexed(text: str) -> str:
    """The text as it is, for what stands anywhere in it, and with a space before each word, for what begins one: so the
    beginning of a word has its own three characters."""
    return f"{text}\n{_spaced(text)}"


def _spaced(text: str) -> str:
    return f" {_NOT_WORD.sub(' ', text)}"

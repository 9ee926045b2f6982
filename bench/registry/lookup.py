"""Finding models: by the index in SQLite, beside a scan of all that was parsed and is kept in memory.

In this process, on the store that a host has filled: a page of models from a text, and a model from an id, as the
extension has them before they are sent anywhere. The scan is given its texts ready and in lower case. Both must find
the same models, but for words of one or two letters, which the index takes for the beginning of a word and a scan for
letters anywhere. No question is asked twice of the index: models that it has found are remembered.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from catalogues import Catalogue
from hosts import synced
from jan_registry.listing import SignedListing, states_of
from jan_registry.search import index
from jan_registry.signed.store import HubStore
from kit import Kit, say
from machine import Load
from quantiles import PERCENTILES, percentile, percentiles
from queries import LIMIT, Query, queries
from report import Reach, Report, Table, figure

__all__ = ["Scan", "measure"]

TABLES = ("entry", "words", "starts", "file")
BUILDING = ["models", "index, ms", "database, MB", "of it the index", "the scan's parsing, ms"]


class Scan:
    """All models in memory, in the index's order: what is downloaded most first."""

    def __init__(self, catalogue: Catalogue, order: dict[str, int]) -> None:
        parsed = [json.loads(record) for record in catalogue.models.values()]
        parsed.sort(key=lambda model: order[model["id"]])
        self._models = [(_text(model), model) for model in parsed]
        self._by_id: dict[str, dict[str, Any]] = {model["id"]: model for model in parsed}

    def get(self, id: str) -> dict[str, Any]:
        return self._by_id[id]

    def search(self, text: str, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        words = text.lower().split()
        found = [model for its, model in self._models if all(word in its for word in words)]
        return found[offset : offset + limit], len(found)


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    load, each, fewer = Load(), 5 if kit.quick else 20 * kit.rounds, 5
    totals, kinds, building, reaches, wrong, compared = [], [], [], [], 0, 0
    for size in kit.sizes:
        say(f"lookup: {size:,} models")
        having = await synced(kit, size)
        catalogue = having.catalogue
        (folder,) = (having.data / "registry" / "hubs").iterdir()
        store = HubStore(folder)
        try:
            building.append([f"{size:,}", *_built(store)])
            listing = SignedListing(store, states_of(store), "cache", "http://hub.test/")
            listing.sweep(threading.Event())  # as a host does in the background, once for each state
            began = time.perf_counter()
            scan = Scan(catalogue, _order(store))
            parsing = time.perf_counter() - began
            building[-1].append(figure(parsing * 1e3))
            asked = queries(catalogue, each)
            ours = {kind: [_search(listing.search, query) for query in some] for kind, some in asked.items()}
            some_asked = {kind: some[:fewer] for kind, some in asked.items()}
            theirs = {kind: [_search(scan.search, query) for query in some] for kind, some in some_asked.items()}
            compared += sum(map(len, some_asked.values()))
            wrong += sum(not _alike(listing, scan, query) for some in some_asked.values() for query in some)
            ids = random.Random(7).choices(list(catalogue.models), k=1000)
            gets = [_get(listing.get, id) for id in ids], [_get(scan.get, id) for id in ids]
        finally:
            store.close()
        all_ours, all_theirs = [*chain(*ours.values())], [*chain(*theirs.values())]
        totals += [
            [f"{size:,}: search, index", *percentiles(all_ours)],
            [f"{size:,}: search, scan", *percentiles(all_theirs)],
            [f"{size:,}: one id, store", *percentiles(gets[0])],
            [f"{size:,}: one id, dict", *percentiles(gets[1])],
        ]
        late = percentile(all_ours, 0.95)
        reaches.append(Reach(f"search, {size:,} models, p95", late * 1e3 if late is not None else None, 5, "ms"))
        if size == kit.sizes[-1]:
            kinds = [[kind, *percentiles(ours[kind]), *percentiles(theirs[kind])[:1]] for kind in asked]
    tables = [
        Table(f"A page of {LIMIT}, and one model", ["", *PERCENTILES], totals),
        Table(f"By what was typed, {size:,} models", ["", *PERCENTILES, "scan, p50"], kinds),
        Table(
            "What it takes",
            ["models", "index, ms", "database, MB", "of it the index", "the scan's parsing, ms"],
            building,
        ),
    ]
    notes = [
        f"{each} questions of each kind, {fewer} of them also to the scan: {wrong} of {compared} answers differed",
        f"busy with other work: {figure(load.cores())} cores",
    ]
    return Report(tables, reaches, notes)


def _search(search: Callable[[str, int, int], object], query: Query) -> float:
    text, offset = query
    began = time.perf_counter()
    search(text, LIMIT, offset)
    return time.perf_counter() - began


def _get(get: Callable[[str], object], id: str) -> float:
    began = time.perf_counter()
    get(id)
    return time.perf_counter() - began


def _alike(listing: SignedListing, scan: Scan, query: Query) -> bool:
    """Whether both find the same page; of words of one or two letters they find others, by intent."""
    text, offset = query
    found, expected = listing.search(text, LIMIT, offset)[0], scan.search(text, LIMIT, offset)[0]
    short = any(len(word) < 3 for word in text.split())
    return short or [model.id for model in found] == [model["id"] for model in expected]


def _text(model: dict[str, Any]) -> str:
    return "\n".join([model["id"], model["name"], model["publisher"], *model.get("tags", [])]).lower()


class _Undone(Exception):
    """Ends a transaction that is not to be kept."""


def _built(store: HubStore) -> list[str]:
    """Milliseconds to build the index of what is stored; megabytes of the database, and of the index in it."""
    took = 0.0
    with contextlib.suppress(_Undone), store.db.write() as db:
        began = time.perf_counter()
        index(db, None)
        took = time.perf_counter() - began
        raise _Undone
    with store.db.read() as db:
        whole = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]
        try:
            names = " OR ".join(f"name GLOB '{table}*'" for table in TABLES)
            own = db.execute(
                f"SELECT sum(pgsize) FROM dbstat WHERE {names} OR name GLOB '*autoindex_entry*'"
            ).fetchone()
        except sqlite3.OperationalError:  # a build without dbstat
            own = (None,)
    return [figure(took * 1e3), figure(whole / 1e6), figure(own[0] / 1e6 if own[0] is not None else None)]


def _order(store: HubStore) -> dict[str, int]:
    with store.db.read() as db:
        return {id: at for at, (id,) in enumerate(db.execute("SELECT id FROM entry ORDER BY rowid"))}

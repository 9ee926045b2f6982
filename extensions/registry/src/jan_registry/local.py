"""`registry.db`: what this machine has seen and decided. It never leaves the machine.

The tables belong to the modules named beside them; this file only says what the database looks like.
"""

from __future__ import annotations

from pathlib import Path

from .sqlite import Database

__all__ = ["open_local"]

VERSION = 2
SCHEMA = """
DROP TABLE IF EXISTS list;
-- hubs/cache.py: third-party hubs, TTL + LRU
CREATE TABLE hub_cache (
    key TEXT PRIMARY KEY, hub TEXT NOT NULL, status INTEGER NOT NULL, etag TEXT NOT NULL, last_modified TEXT NOT NULL,
    headers TEXT NOT NULL, size INTEGER NOT NULL, fetched_at INTEGER NOT NULL, fresh_until INTEGER NOT NULL,
    stale_until INTEGER NOT NULL, last_used INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX hub_cache_used ON hub_cache (last_used, size);
-- flags/identity.py: the random id that buckets are drawn from; never sent
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- rollout/: phase, what was observed, what was decided and from what
CREATE TABLE rollout (
    flag TEXT PRIMARY KEY, phase TEXT NOT NULL, since INTEGER NOT NULL, fresh TEXT NOT NULL, earned TEXT NOT NULL,
    cap TEXT NOT NULL, until INTEGER NOT NULL, cause TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE observation (
    at INTEGER NOT NULL, flag TEXT NOT NULL, kind TEXT NOT NULL, ok INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX observation_kind ON observation (flag, kind, ok);
CREATE TABLE decision (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, flag TEXT NOT NULL, from_phase TEXT NOT NULL,
    to_phase TEXT NOT NULL, reason TEXT NOT NULL, inputs BLOB NOT NULL, verdict BLOB NOT NULL
);
-- experiments/: who takes part, what was shown, what came of it
CREATE TABLE enrollment (
    experiment TEXT PRIMARY KEY, branch TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE exposure (
    experiment TEXT, branch TEXT NOT NULL, session TEXT, at INTEGER NOT NULL, PRIMARY KEY (experiment, session)
) WITHOUT ROWID;
CREATE TABLE shown (experiment TEXT, model TEXT, PRIMARY KEY (experiment, model)) WITHOUT ROWID;
CREATE TABLE outcome (
    experiment TEXT, kind TEXT, at INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (experiment, kind)
) WITHOUT ROWID;
-- usage.py: what this person uses, by the day
CREATE TABLE usage (
    model TEXT, kind TEXT, day INTEGER, count INTEGER NOT NULL, PRIMARY KEY (model, kind, day)
) WITHOUT ROWID
"""


def open_local(folder: Path) -> Database:
    """The database in the extension's data folder. Nothing is opened before it is used."""
    return Database(folder / "registry.db", SCHEMA, VERSION)

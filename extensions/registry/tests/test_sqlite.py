"""The file under it all: what a failed transaction leaves, and who waits for whom."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from jan_registry.sqlite import Database

from jan_core import StorageError


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "x.db", "CREATE TABLE a (b INTEGER UNIQUE)", 1)


def count(database: Database) -> int:
    with database.read() as db:
        return int(db.execute("SELECT count(*) FROM a").fetchone()[0])


def _write(database: Database, statement: str, error: Exception) -> None:
    with database.write() as db:
        db.execute(statement)
        raise error


def test_what_fails_is_undone_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        _write(database, "INSERT INTO a VALUES (1)", ZeroDivisionError())
    with pytest.raises(StorageError, match="UNIQUE"), database.write() as db:
        db.execute("INSERT INTO a VALUES (1), (1)")
    with database.write() as db:
        db.execute("INSERT INTO a VALUES (2)")
    assert count(database) == 1
    database.close()


@pytest.mark.parametrize("ends", ["ROLLBACK", "COMMIT"])
def test_a_transaction_that_the_disk_has_ended_tells_its_own_reason(database: Database, ends: str) -> None:
    with pytest.raises(RuntimeError, match="the disk"):
        _write(database, ends, RuntimeError("the disk"))  # as SQLite does by itself when a disk is full
    with database.write() as db:
        db.execute("INSERT INTO a VALUES (1)")
    assert count(database) == 1
    database.close()


def test_a_commit_that_fails_leaves_no_transaction_behind(tmp_path: Path) -> None:
    schema = "CREATE TABLE p (id INTEGER PRIMARY KEY);\nCREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
    database = Database(tmp_path / "x.db", schema, 1)
    with database.write() as db:
        db.execute("INSERT INTO p VALUES (1)")
    database._writer.execute("PRAGMA foreign_keys = ON")  # type: ignore[union-attr]  # so that COMMIT itself fails
    with pytest.raises(StorageError, match="FOREIGN KEY"), database.write() as db:
        db.execute("INSERT INTO c VALUES (7)")
    with database.write() as db:
        db.execute("INSERT INTO c VALUES (1)")
    with database.read() as db:
        assert db.execute("SELECT p FROM c").fetchall() == [(1,)]
    database.close()


def test_readers_do_not_wait_for_who_writes(database: Database) -> None:
    assert count(database) == 0
    with database.write() as db:
        db.execute("INSERT INTO a VALUES (1)")
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(count(database)))
        reader.start()
        reader.join(10)
        assert seen == [0]
    assert count(database) == 1
    database.close()

"""A disk that cannot be written, or is full: what was verified is still served, and nothing fails that only reads."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jan_registry.indexing import index
from jan_registry.listing import SignedListing, states_of
from jan_registry.signed.fetching import fetcher
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync
from jan_registry.sqlite import Database

from jan_core import StorageError

from .conftest import no_network
from .hubmaker import Hub

SEAL = Callable[[], None]
SCHEMA = "CREATE TABLE t (x INTEGER)"


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[Path, SEAL]]:
    """A folder, and what makes it one that nobody can write: a disk of its own for root, who may write everywhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix":
        pytest.skip("folders that cannot be written are made with Unix's means")
    if os.geteuid() != 0:

        def seal() -> None:
            for path in (folder, *folder.rglob("*")):
                if path.is_dir():
                    path.chmod(0o500)

        yield folder, seal
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        return
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"root, and no disk can be mounted here: {made.stderr.strip()}")

    def remount() -> None:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)

    try:
        yield folder, remount
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_what_was_written_is_read_where_nothing_can_be_written(sealed: tuple[Path, SEAL]) -> None:
    folder, seal = sealed
    path = folder / "a.db"
    first = Database(path, SCHEMA, 1)
    with first.write() as db:
        db.execute("INSERT INTO t VALUES (7)")
    first.close()
    seal()
    database = Database(path, SCHEMA, 1)
    with database.read() as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
    assert "cannot be written" in database.note
    assert not database.writable()
    with pytest.raises(StorageError), database.write() as db:
        db.execute("INSERT INTO t VALUES (8)")
    database.close()


def test_what_is_still_in_the_log_is_read_too(sealed: tuple[Path, SEAL]) -> None:
    folder, seal = sealed
    source = folder.parent / "source.db"
    first = Database(source, SCHEMA, 1)
    with first.write() as db:
        db.execute("INSERT INTO t VALUES (7)")
    for suffix in ("", "-wal", "-shm"):  # as a process that was killed leaves them
        shutil.copy(f"{source}{suffix}", folder / f"a.db{suffix}")
    first.close()
    seal()
    database = Database(folder / "a.db", SCHEMA, 1)
    with database.read() as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
    database.close()


def test_a_file_of_another_schema_is_not_read_as_ours(sealed: tuple[Path, SEAL]) -> None:
    folder, seal = sealed
    other = Database(folder / "a.db", SCHEMA, 2)
    with other.write():
        pass
    other.close()
    seal()
    database = Database(folder / "a.db", SCHEMA, 3)
    with pytest.raises(StorageError, match="schema"), database.read():
        pass


def test_a_disk_that_can_be_written_again_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    first = Database(path, SCHEMA, 1)
    with first.write() as db:
        db.execute("INSERT INTO t VALUES (7)")
    first.close()
    database = Database(path, SCHEMA, 1)

    def broken(*args: object) -> sqlite3.Connection:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_connect_or_rebuild", broken)
        with database.read() as db:
            assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
        assert database.note
    with database.read() as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(7,)]
    assert database.note == ""
    database.close()


def test_the_last_verified_list_is_served_from_it(sealed: tuple[Path, SEAL], hub: Hub) -> None:
    folder, seal = sealed
    hub.models("a", "b").set("featured", [{"id": "default", "models": ["b"]}])
    hub.set("revocations", [{"id": "r", "model": "a", "reason": "stolen"}]).publish()
    store = HubStore(folder / "store")
    sync(store, fetcher(hub.url, no_network, timeout=9), hub.root, now=time.time, on_models=index)
    store.close()
    seal()
    store = HubStore(folder / "store")
    listing = SignedListing(store, states_of(store), "cache", hub.url)
    assert [model.id for model in listing.featured({})] == ["b"]
    assert listing.revocations.refusal(model="a")
    assert [model.id for model in listing.search("b", 9, 0)[0]] == ["b"]
    store.close()


def registry(data: Path, *words: str) -> Any:
    """`jan registry WORDS --json` as a process of its own."""
    command = [str(Path(sys.executable).parent / "jan"), "--data-dir", str(data), "registry", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def settled(data: Path, hub: Hub) -> None:
    """A data folder in which the hub's list was fetched."""
    root = data.parent / "root.json"
    root.write_bytes(hub.root)
    data.mkdir()
    settings = {"url": hub.url, "root": str(root), "phase": "dynamic", "refresh_seconds": 0}
    (data / "settings.json").write_text(json.dumps({"registry": settings}))
    registry(data, "refresh")


def test_a_read_only_data_folder_serves_the_last_verified_list(sealed: tuple[Path, SEAL], hub: Hub) -> None:
    folder, seal = sealed
    hub.models("a", "b").set("featured", [{"id": "default", "models": ["a", "b"]}])
    hub.set("revocations", [{"id": "r", "model": "a", "reason": "stolen"}]).publish()
    settled(folder / "data", hub)
    seal()
    answer = registry(folder / "data", "featured")
    assert answer["provenance"]["origin"] == "cache"
    assert [model["id"] for model in answer["models"]] == ["b"]
    assert any("cannot be written" in note for note in registry(folder / "data", "status")["notes"])
    assert registry(folder / "data", "phase")["phase"] == "dynamic"
    assert registry(folder / "data", "report")["phase"] == "dynamic"
    assert registry(folder / "data", "experiments")["experiments"] == []


def test_a_full_disk_is_no_reason_to_say_nothing(sealed: tuple[Path, SEAL], hub: Hub) -> None:
    folder, _ = sealed
    if os.geteuid() != 0:
        pytest.skip("a small disk to fill is root's to mount")
    hub.models("a").set("featured", [{"id": "default", "models": ["a"]}]).publish()
    settled(folder / "data", hub)
    (folder / "data" / "registry" / "registry.db").unlink(missing_ok=True)
    with suppress(OSError), (folder / "filler").open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    assert [model["id"] for model in registry(folder / "data", "featured")["models"]] == ["a"]
    for words in ("phase", "report", "experiments", "status"):
        assert isinstance(registry(folder / "data", words), dict)

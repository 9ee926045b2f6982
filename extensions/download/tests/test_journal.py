"""The journal: what it keeps, whom it obeys, and what becomes of a file of its first version."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.journal import HISTORY_ROWS, Journal
from jan_download.records import PIECE, Job, Piece

from jan_core import StorageError

V1 = Path(__file__).with_name("journal_v1.sql")


def job(id: str = "dl-1", **fields: Any) -> Job:
    defaults: dict[str, Any] = {
        "name": "f", "url": "http://h/f", "sha256": "", "size": 0, "destination": f"{id}.gguf", "partial": id,
    }  # fmt: skip
    return Job(id=id, **(defaults | fields))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "j.db")
    yield journal
    journal.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A journal as the first version wrote it."""
    path = tmp_path / "old.db"
    db = sqlite3.connect(path)
    db.executescript(V1.read_text())
    db.close()
    return path


# -- the first version's file ----------------------------------------


def test_a_job_of_the_first_version_keeps_every_field(old: Path) -> None:
    db = sqlite3.connect(old)
    db.row_factory = sqlite3.Row
    before = {row["id"]: dict(row) for row in db.execute("SELECT * FROM job")}
    db.close()
    journal = Journal(old)
    after = {job.id: msgspec.structs.asdict(job) for job in journal.jobs()}
    journal.close()
    assert len(before) == 4
    assert list(after) == list(before)
    fresh = msgspec.structs.asdict(job())
    for job_id, fields in before.items():
        fields.pop("destination_key")
        new = after[job_id].keys() - fields.keys()
        assert {"role", "pieces", "group", "position", "priority", "limit", "not_before"} <= new
        assert after[job_id] == fields | {name: fresh[name] for name in new}


def test_what_the_first_version_had_fetched_becomes_pieces(old: Path) -> None:
    journal = Journal(old)
    half, end = journal.pieces("dl-half"), journal.pieces("dl-end")
    rest = [*journal.pieces("dl-whole"), *journal.pieces("dl-none")]
    journal.close()
    assert [(p.index, p.length, p.state) for p in half] == [(0, PIECE, "whole"), (1, PIECE, "whole"), (2, 5, "begun")]
    assert [(p.index, p.length, p.state) for p in end] == [(0, PIECE, "whole"), (1, 7, "whole")]
    assert rest == []


def test_a_migrated_journal_takes_new_jobs_and_finds_the_old_by_their_name(old: Path) -> None:
    journal = Journal(old)
    journal.add(job("dl-new", priority=3, group="dg-1"))
    assert [found.id for found in journal.related("whole.gguf", "")] == ["dl-whole"]
    journal.close()
    again = Journal(old)
    assert [found.id for found in again.group("dg-1")] == ["dl-new"]
    assert len(again.pieces("dl-half")) == 3
    again.close()


def test_two_that_open_an_old_journal_at_once_both_get_the_new_one(old: Path) -> None:
    journals, start, seen = [Journal(old) for _ in range(4)], threading.Barrier(4), []

    def look(journal: Journal) -> None:
        start.wait(10)
        seen.append(len(journal.pieces("dl-half")))
        journal.close()

    threads = [threading.Thread(target=look, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [3, 3, 3, 3]


def test_a_migration_that_is_cut_off_leaves_the_old_journal(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jan_download import schema

    def fail(db: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_pieces_from_offsets", fail)
        with pytest.raises(StorageError, match="disk I/O error"):
            Journal(old).jobs()
    journal = Journal(old)
    assert len(journal.jobs()) == 4
    assert len(journal.pieces("dl-half")) == 3
    assert journal.recovered == ""
    journal.close()


def test_the_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE job (id); PRAGMA user_version = 99")
    db.close()
    journal = Journal(path)
    with pytest.raises(StorageError, match="newer version"):
        journal.jobs()
    assert journal.recovered == ""


# -- checkpoints ----------------------------------------


def test_a_checkpoint_notes_pieces_and_job_together(journal: Journal) -> None:
    journal.add(job(run=4))
    after = journal.checkpoint("dl-1", 4, [Piece(2, 5), Piece(0, 9, "verified", "h", 1, 2.0)], offset=14, high=14)
    assert after is not None
    assert (after.offset, after.high) == (14, 14)
    assert journal.checkpoint("dl-1", 4, [Piece(2, 7, "whole")]) is not None
    assert journal.pieces("dl-1") == [Piece(0, 9, "verified", "h", 1, 2.0), Piece(2, 7, "whole")]


def test_a_run_that_was_superseded_notes_nothing(journal: Journal) -> None:
    journal.add(job(run=4))
    journal.checkpoint("dl-1", 4, [Piece(0, 3)], offset=3)
    journal.update("dl-1", 4, run=5)
    assert journal.checkpoint("dl-1", 4, [Piece(0, 9)], offset=9) is None
    assert journal.pieces("dl-1") == [Piece(0, 3)]
    found = journal.get("dl-1")
    assert found is not None
    assert found.offset == 3


def test_a_checkpoint_that_fails_in_the_middle_notes_nothing(journal: Journal) -> None:
    journal.add(job())
    unknown: Any = None
    with pytest.raises(StorageError):
        journal.checkpoint("dl-1", 0, [Piece(0, 3), Piece(1, unknown)], offset=3)
    found = journal.get("dl-1")
    assert found is not None
    assert found.offset == 0
    assert journal.pieces("dl-1") == []


def test_what_is_committed_is_on_the_disk(journal: Journal) -> None:
    with journal.transaction() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_a_new_job_takes_over_what_a_cancelled_one_had(journal: Journal) -> None:
    journal.add(job("dl-old", offset=7, high=9, total=20, validator='"v"', source="s", state="cancelled"))
    journal.add(job("dl-new"))
    journal.checkpoint("dl-old", 0, [Piece(0, 7)])
    journal.inherit("dl-old", "dl-new")
    heir = journal.get("dl-new")
    assert heir is not None
    assert (heir.offset, heir.high, heir.total, heir.validator, heir.source) == (7, 9, 20, '"v"', "s")
    assert journal.pieces("dl-new") == [Piece(0, 7)]
    assert journal.pieces("dl-old") == []
    journal.add(job("dl-high", high=11))
    journal.inherit("dl-new", "dl-high")
    heir = journal.get("dl-high")
    assert heir is not None
    assert (heir.offset, heir.high) == (7, 11), "progress never goes back"


def test_forgetting_a_job_forgets_its_pieces_and_history_and_no_other(journal: Journal) -> None:
    for job_id in ("dl-1", "dl-2"):
        journal.add(job(job_id))
        journal.checkpoint(job_id, 0, [Piece(0, 1)])
        journal.add_history(job_id, "state", {"state": "queued"})
    removed = journal.remove("dl-1")
    assert removed is not None
    assert removed.id == "dl-1"
    assert journal.remove("dl-1") is None
    assert (journal.get("dl-1"), journal.pieces("dl-1"), journal.history("dl-1")) == (None, [], [])
    assert journal.get("dl-2") is not None
    assert len(journal.pieces("dl-2")) == len(journal.history("dl-2")) == 1


# -- hosts and history ----------------------------------------


def test_speeds_of_hosts_are_remembered_and_the_oldest_forgotten(journal: Journal) -> None:
    journal.note_host_speeds({"first.test": 1.5})
    journal.note_host_speeds({f"h{i}.test": float(i) for i in range(500)})
    journal.note_host_speeds({"far.test": 70.0})
    journal.close()
    speeds = journal.host_speeds()
    assert len(speeds) == 500
    assert speeds["far.test"] == 70.0
    assert "first.test" not in speeds


def test_a_long_history_is_thinned_and_keeps_what_is_rare(journal: Journal) -> None:
    with journal.transaction():
        journal.add_history("dl-1", "state", {"state": "queued"}, at=0.0)
        for i in range(3 * HISTORY_ROWS):
            journal.add_history("dl-1", "speed", {"n": i}, at=1.0 + i)
        journal.add_history("dl-1", "state", {"state": "completed"}, at=1e9)
    entries = journal.history("dl-1")
    assert HISTORY_ROWS // 2 <= len(entries) <= HISTORY_ROWS
    assert [e.data for e in entries if e.kind == "state"] == [{"state": "queued"}, {"state": "completed"}]
    numbers = [e.data["n"] for e in entries if e.kind == "speed"]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 3 * HISTORY_ROWS - 1)


def test_no_history_passes_its_bound_whatever_its_kinds(journal: Journal) -> None:
    with journal.transaction():
        for i in range(HISTORY_ROWS + 50):
            journal.add_history("dl-1", f"kind {i // 2}", {})
    assert len(journal.history("dl-1")) <= HISTORY_ROWS


# -- many at once ----------------------------------------


def test_many_threads_use_one_journal(journal: Journal) -> None:
    ids = [f"dl-{i}" for i in range(8)]
    for job_id in ids:
        journal.add(job(job_id))
    failures: list[BaseException] = []

    def work(job_id: str) -> None:
        try:
            for n in range(1, 21):
                journal.checkpoint(job_id, 0, [Piece(n % 3, n)], offset=n)
                journal.note_host_speeds({job_id: float(n)})
                assert journal.pieces(job_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert [found.offset for found in journal.jobs()] == [20] * 8
    assert journal.host_speeds() == dict.fromkeys(ids, 20.0)


ADDER = """
import sys
from pathlib import Path
from jan_download.journal import Journal
from jan_download.records import Job, Piece
path, name = sys.argv[1:]
journal = Journal(Path(path))
journal.add(Job(id=name, name="f", url="u", sha256="", size=0, destination=name, partial=name))
for n in range(1, 31):
    assert journal.checkpoint(name, 0, [Piece(n % 2, n)], offset=n).offset == n
"""


def test_several_processes_use_one_journal(journal: Journal) -> None:
    command = [sys.executable, "-c", ADDER, str(journal.path)]
    children = [subprocess.Popen([*command, name]) for name in ("dl-a", "dl-b", "dl-c")]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert sorted((found.id, found.offset) for found in journal.jobs()) == [("dl-a", 30), ("dl-b", 30), ("dl-c", 30)]


# -- a disk that does not play along ----------------------------------------


def test_a_full_disk_is_said_and_loses_nothing(journal: Journal) -> None:
    journal.add(job())
    journal.checkpoint("dl-1", 0, [Piece(0, 3)], offset=3)
    with journal.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    journal._open().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"j\.db: the disk is full"):
        journal.checkpoint("dl-1", 0, [Piece(n, 1, source="h" * 200) for n in range(1000)], offset=9)
    found = journal.get("dl-1")
    assert found is not None
    assert found.offset == 3
    journal._open().execute("PRAGMA max_page_count = 100000")
    assert journal.checkpoint("dl-1", 0, [Piece(n, 1) for n in range(1000)], offset=9) is not None
    assert len(journal.pieces("dl-1")) == 1000


def test_a_journal_that_cannot_be_written_can_still_be_read(journal: Journal) -> None:
    journal.add(job())
    journal._open().execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="readonly"):
        journal.update("dl-1", state="paused")
    assert [found.state for found in journal.jobs()] == ["queued"]


def test_a_commit_that_fails_is_undone(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.add(job())

    class Failing:
        """The connection, but its next COMMIT fails as that of a full disk does: the transaction stays open."""

        def __init__(self, db: sqlite3.Connection) -> None:
            self.db = db

        def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
            if query == "COMMIT":
                raise sqlite3.OperationalError("the disk is full")
            return self.db.execute(query, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

    opened = journal._open
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_open", lambda: Failing(opened()))
        with pytest.raises(StorageError, match="full"):
            journal.update("dl-1", state="paused")
    assert journal.update("dl-1", priority=2) is not None
    other = Journal(journal.path)
    assert [(found.state, found.priority) for found in other.jobs()] == [("queued", 2)]
    other.close()


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"no database" * 1000)
    journal = Journal(path)
    assert journal.jobs() == []
    assert "kept as j.db.damaged-" in journal.recovered
    journal.close()
    assert len(list(tmp_path.glob("j.db.damaged-*"))) == 1


# -- any order of steps ----------------------------------------

STEP = st.one_of(
    st.tuples(st.just("checkpoint"), st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 5), st.integers(0, 99)),
    st.tuples(st.just("run"), st.sampled_from("ab"), st.integers(0, 2)),
    st.tuples(st.just("forget"), st.sampled_from("ab")),
    st.tuples(st.just("remove"), st.sampled_from("ab")),
    st.tuples(st.just("inherit"), st.sampled_from("ab"), st.sampled_from("ab")),
    st.tuples(st.just("reopen")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_the_journal_does_what_a_dictionary_would(tmp_path_factory: Any, steps: list[tuple[Any, ...]]) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "j.db")
    model: dict[str, tuple[int, int, dict[int, int]]] = {}
    for name in "ab":
        journal.add(job(name))
        model[name] = (0, 0, {})

    def checkpoint(name: str, run: int, index: int, length: int) -> None:
        accepted = journal.checkpoint(name, run, [Piece(index, length)], offset=length) is not None
        assert accepted == (name in model and model[name][0] == run)
        if accepted:
            model[name] = (run, length, model[name][2] | {index: length})

    def change_run(name: str, run: int) -> None:
        journal.update(name, run=run)
        if name in model:
            model[name] = (run, *model[name][1:])

    def forget(name: str) -> None:
        journal.forget_pieces(name)
        if name in model:
            model[name] = (*model[name][:2], {})

    def remove(name: str) -> None:
        assert (journal.remove(name) is not None) == (model.pop(name, None) is not None)

    def inherit(name: str, heir: str) -> None:
        if name == heir or name not in model or heir not in model:
            return
        journal.inherit(name, heir)
        model[heir] = (model[heir][0], *model[name][1:])
        model[name] = (model[name][0], 0, {})

    actions: dict[str, Callable[..., None]] = {
        "checkpoint": checkpoint, "run": change_run, "forget": forget, "remove": remove, "inherit": inherit,
        "reopen": journal.close,
    }  # fmt: skip
    for kind, *values in steps:
        actions[kind](*values)
    journal.close()
    seen = {j.id: (j.run, j.offset, {p.index: p.length for p in journal.pieces(j.id)}) for j in journal.jobs()}
    journal.close()
    assert seen == model

"""A start after anything: a crash at each step, an older version's folder, files that came or went meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jan_download.groups import make_usable, unnamed
from jan_download.integrity.check import check
from jan_download.integrity.piece_lists import PieceHashes
from jan_download.integrity.repair import take_back
from jan_download.journal import Journal
from jan_download.records import PIECE, Job, JobState, Piece
from jan_download.storage import linking
from jan_download.storage.recovery import Recovered, recover
from jan_download.storage.removal import remove
from jan_download.storage.store import Store

DATA = b"whole file"
HASH = hashlib.sha256(DATA).hexdigest()
OTHER = b"another file"
OTHER_HASH = hashlib.sha256(OTHER).hexdigest()
DAY = 86_400.0
V1 = Path(__file__).with_name("journal_v1.sql")


class House:
    """A data folder, and the ways in which it comes into its states."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store, self.journal = Store(root), Journal(root / "j.db")

    def add(self, id: str = "dl-1", state: JobState = "running", data: bytes = DATA, **fields: Any) -> Job:
        sha256 = hashlib.sha256(data).hexdigest()
        defaults: dict[str, Any] = {
            "name": "f", "url": "http://h/f", "sha256": sha256, "size": len(data), "destination": f"{id}.gguf",
            "partial": sha256, "created_at": time.time(), "updated_at": time.time(),
        }  # fmt: skip
        if state == "completed":
            size = len(data)
            defaults |= {
                "offset": size,
                "total": size,
                "high": size,
                "actual": sha256,
                "verified": True,
                "completed_at": 1.0,
            }
        job = Job(id=id, state=state, **(defaults | fields))
        self.journal.add(job)
        return job

    def job(self, id: str = "dl-1") -> Job:
        job = self.journal.get(id)
        assert job is not None
        return job

    def write(self, path: Path, data: bytes = DATA) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def blob(self, data: bytes = DATA, content: bytes | None = None) -> Path:
        return self.write(self.store.blob(hashlib.sha256(data).hexdigest()), data if content is None else content)

    def recover(self, **options: Any) -> Recovered:
        return recover(self.journal, self.store, **({"resume": True, "keep_partial_days": 7} | options))

    def files(self) -> dict[str, bytes]:
        """Everything in the folders, by its path below the data folder."""
        found = [p for name in ("blobs", "files", "partial") for p in (self.root / name).rglob("*") if not p.is_dir()]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "data")
    yield house
    house.journal.close()


BLOB, PART = f"blobs/sha256/{HASH[:2]}/{HASH}", f"partial/{HASH}.part"


# -- a crash at each step ----------------------------------------


class Killed(BaseException):
    """Nothing of the process runs on after this."""


class Death:
    """Kills at the n-th step that a disk would see, before or after it; from then on nothing happens any more."""

    NAMES = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "symlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.count, self.dead = at, 0, False
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._deadly(getattr(os, name)))
        monkeypatch.setattr(Journal, "update", self._deadly(Journal.update))

    def _deadly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            result = function(*args, **kwargs)
            self._pass()
            return result

        return step

    def _pass(self) -> None:
        self.count += 1
        if self.dead or self.count == self.at:
            self.dead = True
            raise Killed


def killed_at_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[House], None], act: Callable[[House], object]
) -> Iterator[House]:
    """Houses in which `act` was killed: at its first step, its second, … and at last one where it was not."""
    for at in range(1, 500):
        house = House(tmp_path / f"data {at}")
        begin(house)
        survived = True
        with monkeypatch.context() as patch:
            death = Death(patch, at)
            try:
                act(house)
            except Killed:
                survived = False
        house.journal.close()
        yield house
        house.journal.close()
        assert survived == (death.count < at)
        if survived:
            assert at > 5
            return
    raise AssertionError("it has no end")


def finish(house: House) -> None:
    """The end of a run: the partial file is whole and its hash right."""
    job = house.job()
    house.store.publish(job.partial, HASH)
    size = len(DATA)
    house.store.name(HASH, job.destination)
    with house.journal.transaction():
        house.journal.forget_pieces(job.id)
        changes: dict[str, Any] = {"state": "completed", "actual": HASH, "total": size, "high": size, "verified": True}
        house.journal.update(job.id, job.run, offset=size, completed_at=time.time(), **changes)


def whole_partial(house: House) -> None:
    house.add(offset=len(DATA), high=len(DATA))
    house.journal.checkpoint("dl-1", 0, [Piece(0, len(DATA), "whole")])
    house.write(house.store.partial(HASH))


def test_a_crash_at_any_step_of_the_end_of_a_run_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for house in killed_at_each_step(tmp_path, monkeypatch, whole_partial, finish):
        assert house.files().get(BLOB, DATA) == DATA
        assert house.recover().warnings == []
        if house.job().state != "completed":
            assert house.job().state == "queued"
            assert [(p.length, p.state) for p in house.journal.pieces("dl-1")] == [(len(DATA), "whole")]
            assert house.files() == {PART: DATA}
            finish(house)
        assert house.files() == {BLOB: DATA, "files/dl-1.gguf": DATA}
        job = house.job()
        assert (job.state, job.actual, job.verified, job.offset, job.high) == ("completed", HASH, True, 10, 10)
        assert house.journal.pieces("dl-1") == []
        assert house.recover().jobs == [], "a second start has nothing to do"


@pytest.mark.parametrize("origin", ["", "Ollama"])
def test_a_crash_at_any_step_of_a_repair_never_promises_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    bad, hashes = b"wHole file", PieceHashes(4, b"".join(hashlib.sha256(p).digest() for p in (b"whol", b"e fi", b"le")))

    def begin(house: House) -> None:
        house.add(state="completed", origin=origin)
        theirs = house.write(house.root / "theirs", bad)
        house.store.blob(HASH).parent.mkdir(parents=True)
        os.link(theirs, house.store.blob(HASH))
        house.store.name(HASH, "dl-1.gguf")

    def repair(house: House) -> None:
        checked = check(house.store.blob(HASH), len(DATA), hashes)
        assert checked is not None
        assert checked.bad == (0,)
        assert take_back(house.job(), checked, hashes, house.journal, house.store, again=True)

    for house in killed_at_each_step(tmp_path, monkeypatch, begin, repair):
        committed = house.job().state == "queued"
        assert house.recover().warnings == []
        job, partial = house.job(), house.store.partial(HASH)
        if job.state == "completed":  # it had not come far: what is wrong is found by verifying again
            left = house.files()
            assert left.pop(PART, bad) == bad, "a copy that nobody will ask for, and that is swept in time"
            assert left == {BLOB: bad, "files/dl-1.gguf": bad}
            continue
        assert house.files() == {PART: bad}
        assert partial.samefile(house.root / "theirs") == (origin == "")
        assert [p.index for p in house.journal.pieces("dl-1") if p.length] == ([1, 2] if committed else [])
        assert (job.state, job.offset, job.verified) == ("queued", 6 if committed else 0, False)


def test_a_crash_at_any_step_of_removing_leaves_something_that_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(house: House) -> None:
        house.add(state="completed")
        house.add("dl-2", state="completed", data=OTHER)
        house.blob()
        house.blob(OTHER)
        house.recover()

    kept = {f"blobs/sha256/{OTHER_HASH[:2]}/{OTHER_HASH}": OTHER, "files/dl-2.gguf": OTHER}
    for house in killed_at_each_step(
        tmp_path, monkeypatch, begin, lambda house: remove("dl-1", house.journal, house.store)
    ):
        house.recover()
        remove("dl-1", house.journal, house.store)
        assert house.files() == kept
        assert [job.id for job in house.journal.jobs()] == ["dl-2"]


# -- the first version's folder ----------------------------------------


def old_house(root: Path) -> House:
    root.mkdir()
    house = House(root)
    db = sqlite3.connect(house.journal.path)
    db.executescript(V1.read_text())
    db.close()
    house.write(root / "files" / "Whole.GGUF")
    half = house.write(root / "partial" / "dl-half.partial", b"")
    os.truncate(half, 2 * PIECE + 5)
    end = house.write(root / "partial" / f"{'ab' * 32}.partial", b"")
    os.truncate(end, PIECE + 7)
    house.write(root / "partial" / "stray.partial", b"stray")
    return house


def test_a_folder_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    house = old_house(tmp_path / "data")
    changed = house.recover()
    assert changed.warnings == []
    assert [(job.id, job.state) for job in changed.jobs] == [("dl-end", "queued")]
    assert set(house.files()) == {
        BLOB, "files/Whole.GGUF", "partial/dl-half.part", f"partial/{'ab' * 32}.part", "partial/stray.part",
    }  # fmt: skip
    assert house.store.blob(HASH).samefile(house.store.final("Whole.GGUF"))
    assert house.job("dl-whole").verified
    assert house.job("dl-half").state == "waiting"
    assert sum(p.length for p in house.journal.pieces("dl-half")) == house.job("dl-half").offset == 2 * PIECE + 5
    house.journal.close()


def test_a_crash_while_a_folder_is_taken_over_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    houses = iter(range(10_000))
    made: dict[Path, House] = {}

    def begin(house: House) -> None:
        old = old_house(tmp_path / f"old {next(houses)}")
        old.journal.close()
        shutil.copytree(old.root, house.root)
        made[house.root] = house

    for house in killed_at_each_step(tmp_path, monkeypatch, begin, House.recover):
        assert house.recover().warnings == []
        assert len(house.files()) == 5
        assert house.store.blob(HASH).samefile(house.store.final("Whole.GGUF"))
        assert len(house.journal.pieces("dl-half")) == 3


def test_the_first_versions_files_are_taken_over_on_a_disk_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EPERM, "not on this file system")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(linking, "clone", lambda file, copy: False)
    house = old_house(tmp_path / "data")
    assert house.recover().warnings == []
    assert house.store.blob(HASH).read_bytes() == house.store.final("Whole.GGUF").read_bytes() == DATA

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    other = old_house(tmp_path / "other")
    [warning] = other.recover().warnings
    assert "No space left" in warning
    assert other.store.final("Whole.GGUF").read_bytes() == DATA, "what cannot be taken over is left as it was"
    assert not other.store.blob(HASH).exists()
    house.journal.close()
    other.journal.close()


# -- files without rows, rows without files ----------------------------------------


def test_a_file_under_the_name_that_a_job_wants_is_checked_and_taken(house: House) -> None:
    """The first version, killed between giving the name and saying so."""
    house.add(state="verifying", sha256="", partial="dl-1", actual=HASH, size=0, total=len(DATA), offset=len(DATA))
    house.write(house.store.final("dl-1.gguf"))
    house.recover()
    job = house.job()
    assert (job.state, job.actual, job.verified) == ("completed", HASH, False)
    assert house.store.blob(HASH).samefile(house.store.final("dl-1.gguf"))


@pytest.mark.parametrize("strange", [b"WHOLE FILE", b"strange"])
def test_a_strange_file_under_the_name_is_left_alone(house: House, strange: bytes) -> None:
    house.add()
    house.write(house.store.final("dl-1.gguf"), strange)
    house.recover()
    assert house.job().state == "queued"
    assert house.files() == {"files/dl-1.gguf": strange}


def test_a_blob_that_is_not_what_its_name_says_is_a_partial_file_again(house: House) -> None:
    house.add()
    house.blob(content=b"wHole file")
    house.store.name(HASH, "dl-1.gguf")
    house.recover()
    assert house.job().state == "queued"
    assert house.files() == {PART: b"wHole file"}


def test_an_adopted_blob_that_is_not_what_its_name_says_is_let_go_and_never_written_to(house: House) -> None:
    house.add(origin="Ollama")
    house.blob(content=b"wHole file")
    house.recover()
    assert house.job().state == "queued"
    assert house.files() == {}


def test_a_name_that_is_missing_is_given_again(house: House) -> None:
    house.add(state="completed")
    house.blob()
    house.recover()
    assert house.store.final("dl-1.gguf").samefile(house.store.blob(HASH))


def test_a_file_of_a_group_has_no_name_before_the_group_is_complete(house: House) -> None:
    house.add("dl-1", state="completed", group="dg-1", position=1, completed_at=0.0)
    house.add("dl-2", state="paused", group="dg-1", position=0, data=OTHER)
    house.blob()
    house.recover()
    house.blob(OTHER)
    house.recover()
    assert not house.store.files.exists()
    assert [(house.job(id).state, house.job(id).completed_at) for id in ("dl-1", "dl-2")] == [("completed", 0.0)] * 2
    assert unnamed(house.journal) == ["dg-1"]
    make_usable("dg-1", house.journal, house.store)
    house.store.final("dl-1.gguf").unlink()
    house.recover()
    assert house.store.final("dl-1.gguf").read_bytes() == DATA
    assert house.store.final("dl-2.gguf").read_bytes() == OTHER


@pytest.mark.parametrize("state", ["paused", "failed", "cancelled"])
def test_a_partial_file_that_is_gone_is_begun_anew_and_progress_stays(house: House, state: JobState) -> None:
    house.add(state=state, offset=6, high=8, discarded=1)
    house.journal.checkpoint("dl-1", 0, [Piece(0, 6)])
    house.recover()
    job = house.job()
    assert (job.state, job.offset, job.high, job.discarded) == (state, 0, 8, 7)
    assert house.journal.pieces("dl-1") == []


def test_a_file_that_was_being_repaired_goes_on(house: House) -> None:
    house.add(state="completed")
    house.write(house.store.partial(HASH), b"wHole file")
    house.recover()
    job = house.job()
    assert (job.state, job.offset, job.actual, job.verified) == ("queued", 0, "", False)
    assert house.files() == {PART: b"wHole file"}


def test_a_file_that_somebody_removed_stays_removed(house: House) -> None:
    house.add(state="completed")
    assert house.recover() == Recovered()
    assert house.job().state == "completed"
    assert house.files() == {}


def test_trouble_with_one_file_is_a_warning_and_not_the_end(house: House) -> None:
    house.add("dl-1", state="completed")
    house.blob()
    house.write(house.store.final("dl-1.gguf"), b"strange")
    house.add("dl-2", state="running", data=OTHER)
    outcome = house.recover()
    assert len(outcome.warnings) == 1
    assert "dl-1.gguf" in outcome.warnings[0]
    assert house.job("dl-2").state == "queued"
    assert house.store.final("dl-1.gguf").read_bytes() == b"strange"


def test_a_mistake_about_one_file_is_a_warning_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(sha256: str, destination: str) -> Path:
        raise KeyError("not foreseen")

    house.add("dl-1", state="completed")
    house.blob()
    house.add("dl-2", state="running", data=OTHER)
    monkeypatch.setattr(house.store, "name", name)
    [warning] = house.recover().warnings
    assert "not foreseen" in warning
    assert house.job("dl-2").state == "queued"


def test_a_journal_that_was_damaged_is_said(house: House) -> None:
    house.write(house.journal.path, b"no database" * 1000)
    [warning] = house.recover().warnings
    assert "damaged" in warning


# -- states and sweeping ----------------------------------------


@pytest.mark.parametrize("resume", [True, False])
def test_what_was_interrupted_goes_on_or_is_paused(house: House, resume: bool) -> None:
    states: list[JobState] = [
        "running",
        "verifying",
        "queued",
        "waiting",
        "offline",
        "blocked_disk",
        "paused",
        "failed",
    ]
    for number, state in enumerate(states):
        house.add(f"dl-{number}", state=state, data=state.encode())
    house.recover(resume=resume)
    after = [house.job(f"dl-{number}").state for number in range(len(states))]
    if resume:
        assert after == ["queued", "queued", *states[2:]]
    else:
        assert after == ["paused"] * 7 + ["failed"]


def test_what_was_half_taken_over_from_elsewhere_is_removed(house: House) -> None:
    house.add()
    house.write(house.store.adoption(HASH))
    house.write(house.store.partials / f"{HASH}.copy")
    house.recover()
    assert house.files() == {}


def test_a_cancelled_downloads_bytes_stay_for_the_days_that_are_set(house: House) -> None:
    old = time.time() - 8 * DAY
    for key, cancelled in (("young", time.time()), ("old", old)):
        house.add(f"dl-{key}", state="cancelled", partial=key, updated_at=cancelled, data=key.encode())
    house.add("dl-failed", state="failed", partial="failed", updated_at=old)
    for key in ("young", "old", "failed"):
        os.utime(house.write(house.store.partial(key)), (old, old))
    house.recover()
    assert set(house.files()) == {"partial/young.part", "partial/failed.part"}


def test_a_start_that_is_called_off_ends_at_once(house: House) -> None:
    house.add(state="running")
    assert house.recover(stopped=lambda: True) == Recovered()
    assert house.job().state == "running"


# -- removing ----------------------------------------


def test_a_removed_download_leaves_nothing_and_says_what_is_free(house: House) -> None:
    data = os.urandom(100_000)
    house.add(state="completed", data=data)
    house.blob(data)
    house.recover()
    assert 100_000 <= remove("dl-1", house.journal, house.store) <= 110_000
    assert house.files() == {}
    assert house.journal.jobs() == []
    assert remove("dl-1", house.journal, house.store) == 0


def test_a_file_that_another_download_has_too_stays(house: House) -> None:
    for job_id in ("dl-1", "dl-2"):
        house.add(job_id, state="completed")
    house.blob()
    house.recover()
    assert remove("dl-1", house.journal, house.store) == 0
    assert house.files() == {BLOB: DATA, "files/dl-2.gguf": DATA}
    house.add("dl-3", state="completed", destination="DL-2.gguf")
    assert remove("dl-3", house.journal, house.store) == 0
    assert house.files() == {BLOB: DATA, "files/dl-2.gguf": DATA}
    assert remove("dl-2", house.journal, house.store) > 0
    assert house.files() == {}


@pytest.mark.parametrize("others", ["queued", "cancelled"])
def test_a_partial_file_goes_unless_another_job_goes_on_with_it(house: House, others: JobState) -> None:
    house.add("dl-1", state="cancelled")
    house.add("dl-2", state=others)
    house.write(house.store.partial(HASH))
    freed = remove("dl-1", house.journal, house.store)
    assert (freed > 0, house.files()) == ((False, {PART: DATA}) if others == "queued" else (True, {}))


def test_a_removed_downloads_file_may_stay_under_its_name(house: House) -> None:
    house.add(state="completed")
    house.blob()
    house.recover()
    assert remove("dl-1", house.journal, house.store, keep_file=True) == 0
    assert house.files() == {"files/dl-1.gguf": DATA}
    assert house.journal.jobs() == []


def test_a_file_that_stays_keeps_its_blob_while_another_has_it_and_itself_after_that(house: House) -> None:
    for job_id in ("dl-1", "dl-2"):
        house.add(job_id, state="completed")
    house.blob()
    house.recover()
    remove("dl-1", house.journal, house.store, keep_file=True)
    assert house.files() == {BLOB: DATA, "files/dl-1.gguf": DATA, "files/dl-2.gguf": DATA}
    assert remove("dl-2", house.journal, house.store) == 0
    assert house.files() == {"files/dl-1.gguf": DATA}

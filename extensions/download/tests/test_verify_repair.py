"""Checking a complete file again, and keeping what is right of a damaged one."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_download.engine.pieces import PieceMap
from jan_download.errors import DownloadConflict, DownloadNotFound
from jan_download.integrity import check as checking
from jan_download.integrity import piece_lists, repair
from jan_download.integrity.check import check
from jan_download.integrity.piece_lists import PieceHashes
from jan_download.integrity.verify import verify
from jan_download.journal import Journal
from jan_download.records import Job, Piece
from jan_download.shapes import Verification
from jan_download.storage.store import Store

from .test_storage_recovery import DATA, HASH, House, killed_at_each_step

LENGTH = 64 << 10
CONTENT = random.Random(5).randbytes(5 * LENGTH + 1000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def hashes_of(content: bytes, length: int = LENGTH) -> PieceHashes:
    parts = (content[at : at + length] for at in range(0, len(content), length))
    return PieceHashes(length, b"".join(hashlib.sha256(part).digest() for part in parts))


HASHES = hashes_of(CONTENT)


class Place:
    """A data folder with one complete job, and ways to damage its file."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "data")
        self.journal = Journal(root / "data" / "downloads.db")
        self.add("dl-1", "model.gguf")

    def add(self, job_id: str, destination: str, **fields: Any) -> None:
        known: dict[str, Any] = {"sha256": SHA256, "size": len(CONTENT), "partial": SHA256, "verified": True}
        known |= {"actual": SHA256, "state": "completed", "offset": len(CONTENT), "high": len(CONTENT)}
        known |= {"completed_at": 5.0, "total": len(CONTENT)}
        self.journal.add(Job(id=job_id, name="n", url="http://x/n", destination=destination, **known | fields))
        job = self.job(job_id)
        if not self.store.blob(job.actual).exists():
            partial = self.store.open_partial(job.partial, len(CONTENT))
            partial.write(CONTENT, 0)
            partial.close()
            self.store.publish(job.partial, job.actual)
        self.store.name(job.actual, destination)

    def job(self, job_id: str = "dl-1") -> Job:
        job = self.journal.get(job_id)
        assert job is not None
        return job

    @property
    def blob(self) -> Path:
        return self.store.blob(SHA256)

    @property
    def partial(self) -> Path:
        return self.store.partial(SHA256)

    def write(self, at: int, data: bytes) -> None:
        """Change the file where it is, as a failing disk or another program does."""
        with self.blob.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def flip(self, *offsets: int) -> None:
        for at in offsets:
            self.write(at, bytes([CONTENT[at] ^ 1]))

    def verify(
        self,
        hashes: PieceHashes | None = HASHES,
        *,
        repair: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Verification:
        return verify("dl-1", self.journal, self.store, hashes, repair, stopped, progress)

    def missing(self) -> list[int]:
        """The pieces that a run would fetch."""
        pieces = PieceMap(len(CONTENT), self.journal.pieces("dl-1"), LENGTH)
        return [index for index in range(pieces.count) if not pieces.checked(index)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_file_that_is_right_is_said_to_be(place: Place) -> None:
    before = place.job()
    for hashes in (HASHES, None):
        result = place.verify(hashes, repair=True)
        assert result == Verification("dl-1", True, SHA256, SHA256, True, len(CONTENT))
    assert place.job() == before


def test_a_repair_keeps_every_piece_that_is_right(place: Place) -> None:
    place.journal.checkpoint("dl-1", 0, [Piece(0, LENGTH, "verified", "fast.example")])
    inode = place.blob.stat().st_ino
    place.flip(LENGTH, 3 * LENGTH - 1, 5 * LENGTH + 999)
    result = place.verify(repair=True)
    assert (result.ok, result.damaged, result.repairing, result.warning) == (False, 2 * LENGTH + 1000, True, "")
    job = place.job()
    assert (job.state, job.offset, job.high, job.discarded) == ("queued", 3 * LENGTH, len(CONTENT), 2 * LENGTH + 1000)
    assert (job.run, job.verified, job.completed_at, job.actual, job.error) == (1, False, 0.0, "", "")
    assert place.missing() == [1, 2, 5]
    assert PieceMap(len(CONTENT), place.journal.pieces("dl-1"), LENGTH).map() == "1v2x2v1x"
    assert place.journal.pieces("dl-1")[0].source == "fast.example"
    assert not place.blob.exists()
    assert not place.store.final("model.gguf").exists()
    assert place.partial.stat().st_ino == inode


def test_without_repair_the_job_has_failed_and_its_resume_fetches_only_what_is_wrong(place: Place) -> None:
    place.flip(0)
    result = place.verify()
    assert (result.ok, result.damaged, result.repairing) == (False, LENGTH, False)
    job = place.job()
    assert (job.state, job.error_type, job.offset) == ("failed", "hash_mismatch", len(CONTENT) - LENGTH)
    assert place.missing() == [0]
    assert not place.store.final("model.gguf").exists()


def test_what_else_is_a_link_to_the_file_heals_with_it(place: Place, tmp_path: Path) -> None:
    os.link(place.blob, tmp_path / "installed.gguf")
    place.flip(7)
    place.verify(repair=True)
    partial = place.store.open_partial(SHA256, len(CONTENT))
    partial.write(CONTENT[:LENGTH], 0)
    partial.close()
    assert (tmp_path / "installed.gguf").read_bytes() == CONTENT


def test_a_file_of_another_program_is_never_written_to(place: Place, tmp_path: Path) -> None:
    place.journal.update("dl-1", origin="Ollama")
    theirs = tmp_path / "theirs"
    os.link(place.blob, theirs)
    place.flip(7)
    damaged = theirs.read_bytes()
    result = place.verify(repair=True)
    assert result.damaged == LENGTH
    assert place.missing() == [0]
    assert place.job().origin == ""
    assert not place.partial.samefile(theirs)
    assert place.partial.read_bytes() == damaged
    assert not place.blob.exists()
    assert not place.store.final("model.gguf").exists()


@pytest.mark.parametrize("reason", ["no room", "no hashes"])
def test_a_file_of_another_program_that_cannot_be_copied_is_let_go(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    place.journal.update("dl-1", origin="Ollama")
    theirs = tmp_path / "theirs"
    os.link(place.blob, theirs)
    place.flip(7)

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    if reason == "no room":
        monkeypatch.setattr(repair, "clone", lambda file, copy: False)
        monkeypatch.setattr("shutil.copyfile", full)
    result = place.verify(HASHES if reason == "no room" else None, repair=True)
    assert not result.ok
    assert (place.job().state, place.job().offset, place.journal.pieces("dl-1")) == ("queued", 0, [])
    assert place.partial.read_bytes() == b""
    assert not place.blob.exists()
    assert theirs.stat().st_size == len(CONTENT)


def test_without_hashes_of_pieces_all_is_fetched_again_and_that_is_said(place: Place) -> None:
    place.flip(7)
    result = place.verify(None, repair=True)
    assert (result.damaged, result.repairing) == (len(CONTENT), True)
    assert "all of it has to be fetched again" in result.warning
    assert (place.job().offset, place.job().discarded, place.journal.pieces("dl-1")) == (0, len(CONTENT), [])


def test_a_file_that_was_once_found_right_is_mended_by_pieces_though_nobody_published_their_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PIECE", LENGTH)
    monkeypatch.setattr(piece_lists, "PIECE", LENGTH)
    place = Place(tmp_path)
    assert place.verify(None).ok
    place.flip(7)
    result = place.verify(None, repair=True)
    assert (result.damaged, result.warning, place.missing()) == (LENGTH, "", [0])


def test_a_piece_that_was_never_hashed_alone_counts_as_damaged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_lists, "PIECE", LENGTH)
    known = bytearray(HASHES.hashes)
    known[2 * 32 : 3 * 32] = bytes(32)
    piece_lists.note(SHA256, PieceHashes(LENGTH, bytes(known)), place.store)
    place.flip(7)
    result = place.verify(None, repair=True)
    assert (result.damaged, place.missing()) == (2 * LENGTH, [0, 2])


@pytest.mark.parametrize("damage", [lambda note: note[:-1], lambda note: b"!" + note[1:], lambda note: b""])
def test_a_note_that_is_damaged_is_none(place: Place, damage: Callable[[bytes], bytes]) -> None:
    assert place.verify(None).ok
    assert piece_lists.noted(SHA256, len(CONTENT), place.store) is not None
    path = place.store.root / "pieces" / f"of-{SHA256}.bin"
    path.write_bytes(damage(path.read_bytes()))
    assert piece_lists.noted(SHA256, len(CONTENT), place.store) is None


@pytest.mark.parametrize("size", [0, 1, LENGTH - 1, LENGTH, 2 * LENGTH + 7, len(CONTENT) - 1])
def test_a_file_that_was_cut_off_lacks_only_what_is_missing(place: Place, size: int) -> None:
    os.truncate(place.blob, size)
    result = place.verify(repair=True)
    whole = size // LENGTH
    assert (result.size, result.damaged) == (size, len(CONTENT) - whole * LENGTH)
    assert place.missing() == list(range(whole, HASHES.count))


def test_a_file_that_has_grown_is_cut_off_and_fetches_nothing(place: Place) -> None:
    place.write(len(CONTENT), b"and more")
    result = place.verify(repair=True)
    assert (result.ok, result.size, result.damaged) == (False, len(CONTENT) + 8, 8)
    assert place.missing() == []
    partial = place.store.open_partial(SHA256, len(CONTENT))
    partial.close()
    assert place.partial.read_bytes() == CONTENT


def test_hashes_of_another_file_save_nothing(place: Place) -> None:
    wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    assert place.verify(hashes_of(wrong)).ok
    place.flip(0)
    result = place.verify(hashes_of(wrong), repair=True)
    assert (result.damaged, place.missing()) == (len(CONTENT), list(range(HASHES.count)))


def test_a_file_that_is_gone_is_fetched_again(place: Place) -> None:
    place.blob.unlink()
    place.store.final("model.gguf").unlink()
    result = place.verify(repair=True)
    assert (result.ok, result.size, result.damaged, result.repairing) == (False, 0, len(CONTENT), True)
    assert place.job().state == "queued"


def test_a_file_that_only_its_name_is_left_of_is_taken_back(place: Place) -> None:
    place.blob.unlink()
    assert place.verify().ok
    assert place.blob.read_bytes() == CONTENT
    assert place.job().state == "completed"


@pytest.mark.parametrize("what", ["gone", "another file", "a link to nothing"])
def test_a_name_that_is_none_of_the_file_is_made_again(place: Place, what: str) -> None:
    name = place.store.final("model.gguf")
    name.unlink()
    if what == "another file":
        name.write_bytes(b"other")
    elif what == "a link to nothing":
        name.symlink_to("nowhere")
    result = place.verify()
    assert result.ok
    assert "was made again" in result.warning
    assert name.read_bytes() == CONTENT
    assert place.verify().warning == ""


def test_a_member_of_a_group_that_is_not_complete_gets_no_name(place: Place) -> None:
    place.journal.update("dl-1", group="dg-1")
    place.journal.add(Job(id="dl-2", name="n", url="", sha256="", size=0, destination="d", partial="p", group="dg-1"))
    name = place.store.final("model.gguf")
    name.unlink()
    assert place.verify().warning == ""
    assert not name.exists()


def test_every_job_that_has_the_content_is_fetched_again(place: Place) -> None:
    place.add("dl-2", "again.gguf")
    place.flip(7)
    place.verify(repair=True)
    assert place.job("dl-2").state == "queued"
    assert not place.store.final("again.gguf").exists()


def test_a_job_without_a_known_hash_is_compared_with_what_was_fetched(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.journal.update("dl-1", sha256="", verified=False)
    assert place.verify(None) == Verification("dl-1", True, SHA256, SHA256, False, len(CONTENT))
    place.flip(7)
    assert not place.verify(None, repair=True).ok
    assert place.job().state == "queued"


def test_what_the_disk_cannot_read_is_as_bad_as_what_is_wrong(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FileIO):
        def readinto(self, view: Any) -> int:
            if self.tell() // LENGTH == 2:
                raise OSError(errno.EIO, "cannot be read")
            return super().readinto(view[:LENGTH])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering=-1: Failing(path, mode))
    result = check(place.blob, len(CONTENT), HASHES)
    assert result is not None
    assert (result.actual, result.size, result.bad) == ("", len(CONTENT), (2,))


def test_a_check_shows_how_far_it_is_and_can_be_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_STEP", LENGTH)
    shown: list[tuple[int, int]] = []
    assert place.verify(progress=lambda done, total: shown.append((done, total))).ok
    assert shown == [(n * LENGTH, len(CONTENT)) for n in range(1, 6)]
    place.flip(7)
    before, asked = place.job(), iter([False] * 3)
    with pytest.raises(DownloadConflict, match="stopped"):
        place.verify(repair=True, stopped=lambda: next(asked, True))
    assert place.job() == before
    assert place.store.final("model.gguf").exists()


def test_a_job_that_is_changed_meanwhile_is_left_alone(place: Place) -> None:
    place.flip(7)

    def intervene() -> bool:
        if place.job().run == 0:
            place.journal.update("dl-1", run=1)
        return False

    with pytest.raises(DownloadConflict, match="changed"):
        place.verify(repair=True, stopped=intervene)
    assert place.blob.exists()
    assert place.store.final("model.gguf").exists()
    assert place.job().state == "completed"


@pytest.mark.parametrize("origin", ["", "Ollama"])
@pytest.mark.parametrize("known", [True, False])
def test_a_crash_at_any_step_of_a_repair_leaves_what_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, known: bool
) -> None:
    bad, hashes = b"wHole file", hashes_of(DATA, 4)

    def begin(house: House) -> None:
        house.add(state="completed", origin=origin)
        os.link(house.blob(content=bad), house.root / "theirs")
        house.store.name(HASH, "dl-1.gguf")

    def repair(house: House) -> None:
        verify("dl-1", house.journal, house.store, hashes if known else None, True, lambda: False, lambda a, b: None)

    for house in killed_at_each_step(tmp_path, monkeypatch, begin, repair):
        assert house.recover().warnings == []
        files, theirs = house.files(), house.root / "theirs"
        blob, partial, name = house.store.blob(HASH), house.store.partial(HASH), house.store.final("dl-1.gguf")
        if house.job().state == "completed":
            assert blob.read_bytes() == name.read_bytes() == bad, "what is wrong is found by verifying again"
        else:
            assert house.job().state == "queued"
            assert not blob.exists()
            assert not name.exists()
            good = [piece for piece in house.journal.pieces("dl-1") if piece.state == "verified"]
            assert house.job().offset == sum(piece.length for piece in good)
            assert not good or files == {f"partial/{HASH}.part": bad}
        assert theirs.read_bytes() == bad
        assert not (origin and partial.exists() and partial.samefile(theirs))
        assert [path.suffix for path in house.store.partials.glob("*")] in ([], [".part"])


def test_only_a_complete_job_is_verified(place: Place) -> None:
    place.journal.update("dl-1", state="paused")
    with pytest.raises(DownloadConflict, match="paused"):
        place.verify()
    with pytest.raises(DownloadNotFound):
        verify("dl-9", place.journal, place.store, None, False, lambda: False, lambda done, total: None)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 4 * LENGTH),
    flips=st.lists(st.integers(0, 4 * LENGTH), max_size=4),
    cut=st.integers(0, 5 * LENGTH),
    length=st.sampled_from([LENGTH, LENGTH + 4096, 3 * LENGTH]),
)
def test_exactly_the_pieces_that_differ_are_bad(
    tmp_path_factory: pytest.TempPathFactory, size: int, flips: list[int], cut: int, length: int
) -> None:
    content = CONTENT[:size]
    now = bytearray(content)
    for at in flips:
        now[at % size] ^= 1
    now = (now + CONTENT)[: max(0, cut)] if cut < 4 * LENGTH else now
    path = tmp_path_factory.mktemp("check") / "file"
    path.write_bytes(now)
    result = check(path, size, hashes_of(content, length))
    spans = [(at, min(at + length, size)) for at in range(0, size, length)]
    bad = tuple(index for index, (a, b) in enumerate(spans) if bytes(now[a:b]) != content[a:b])
    assert result is not None
    assert (result.actual, result.size, result.bad) == (hashlib.sha256(now).hexdigest(), len(now), bad)

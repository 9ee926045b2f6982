"""Taking files of other programs in: by link, clone or copy, hashed before anybody relies on them."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from jan_download.adopt import taking
from jan_download.adopt.finder import known_hashes
from jan_download.adopt.taking import take
from jan_download.storage.store import Store

from jan_core.types import AdoptedFile

CONTENT = random.Random(3).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.gguf"
    path.write_bytes(CONTENT)
    return path


def other_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file were on another disk: neither clones nor hard links."""

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(taking, "clone", lambda file, copy: False)


def taken(path: Path, store: Store, **options: object) -> bool:
    return take(AdoptedFile(str(path), "them"), store, "key", SHA256, len(CONTENT), **options)  # type: ignore[arg-type]


def test_a_file_of_another_program_becomes_a_blob_and_stays_theirs(store: Store, theirs: Path) -> None:
    before = theirs.stat()
    assert taken(theirs, store)
    blob = store.adopt("key", SHA256)
    assert blob.read_bytes() == CONTENT
    assert not store.adoption("key").exists()
    after = theirs.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_mode) == (before.st_mtime_ns, before.st_ino, before.st_mode)


def test_a_hard_link_takes_no_room(store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "clone", lambda file, copy: False)
    monkeypatch.setattr(store, "free", lambda: 0)
    assert taken(theirs, store)
    assert store.adoption("key").samefile(theirs)


def test_a_link_to_a_file_is_taken_as_the_file(store: Store, theirs: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(theirs)
    assert taken(link, store)
    assert not store.adoption("key").is_symlink()


def test_a_file_of_another_disk_is_copied(store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_disk(monkeypatch)
    shown: list[int] = []
    assert taken(theirs, store, progress=shown.append)
    assert store.adoption("key").read_bytes() == CONTENT
    assert not store.adoption("key").samefile(theirs)
    assert shown == [len(CONTENT)]


def test_a_copy_is_not_made_where_it_does_not_fit(store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_disk(monkeypatch)
    monkeypatch.setattr(store, "free", lambda: len(CONTENT) + 999)
    assert not taken(theirs, store, reserve=1000)
    assert not store.adoption("key").exists()
    assert taken(theirs, store, reserve=999)


@pytest.mark.parametrize("copied", [False, True])
def test_a_file_with_one_wrong_byte_is_not_taken_and_not_read_again(
    store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    if copied:
        other_disk(monkeypatch)
    content = bytearray(CONTENT)
    content[2_000_000] ^= 1
    theirs.write_bytes(content)
    assert not taken(theirs, store)
    assert list(store.partials.iterdir()) == []
    assert known_hashes(store).of(theirs) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!"])
def test_a_file_of_another_size_is_not_even_read(store: Store, theirs: Path, content: bytes) -> None:
    theirs.write_bytes(content)
    assert not taken(theirs, store)
    assert known_hashes(store).of(theirs) == ""


@pytest.mark.parametrize("copied", [False, True])
def test_a_file_that_is_written_meanwhile_is_not_taken(
    store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    if copied:
        other_disk(monkeypatch)

    def touched() -> bool:
        os.utime(theirs, ns=(1, 1))
        return False

    assert not taken(theirs, store, stopped=touched)
    assert list(store.partials.iterdir()) == []


@pytest.mark.parametrize("copied", [False, True])
def test_taking_ends_when_it_is_stopped(
    store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    if copied:
        other_disk(monkeypatch)
    asked = iter([False, True])
    assert not taken(theirs, store, stopped=lambda: next(asked))
    assert list(store.partials.iterdir()) == []


@pytest.mark.parametrize(
    "make", [Path.mkdir, getattr(os, "mkfifo", Path.mkdir), lambda path: path.symlink_to(path), lambda path: None]
)
def test_what_is_no_plain_file_is_not_taken(store: Store, tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "odd"
    make(path)
    assert not take(AdoptedFile(str(path), "them"), store, "key", SHA256, 0)
    assert not take(AdoptedFile("\0", "them"), store, "key", SHA256, 0)


def test_what_was_left_by_a_crash_is_replaced(store: Store, theirs: Path) -> None:
    store.partials.mkdir(parents=True)
    store.adoption("key").write_bytes(b"half")
    assert taken(theirs, store)
    assert store.adoption("key").read_bytes() == CONTENT


def test_a_full_disk_is_told_and_leaves_nothing(store: Store, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_disk(monkeypatch)

    def full(file: object, view: memoryview) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(taking, "_write", full)
    with pytest.raises(OSError, match="no space"):
        taken(theirs, store)
    assert list(store.partials.iterdir()) == []

"""The folders: how a partial file becomes a blob, how a blob gets names, and what removing frees."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.errors import DownloadConflict
from jan_download.storage import linking
from jan_download.storage.hashing import sha256_of
from jan_download.storage.store import Store

DATA = b"a whole file" * 1000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data folder ü")


def fill(store: Store, key: str, data: bytes = DATA) -> str:
    partial = store.open_partial(key, len(data))
    partial.write(data, 0)
    partial.close()
    return hashlib.sha256(data).hexdigest()


def publish(store: Store, data: bytes = DATA) -> str:
    sha256 = fill(store, "dl-1", data)
    store.publish("dl-1", sha256)
    return sha256


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.EPERM, "not on this file system")


# -- publishing ----------------------------------------


def test_a_partial_file_becomes_the_blob_of_its_hash(store: Store) -> None:
    fill(store, "dl-1")
    blob = store.publish("dl-1", HASH)
    assert blob == store.blob(HASH)
    assert blob.parent.name == HASH[:2]
    assert sha256_of(blob) == HASH
    assert not store.partial("dl-1").exists()
    assert store.publish("dl-1", HASH) == blob, "doing it again does nothing"


def test_publishing_what_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.publish("dl-1", HASH)


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    opened: dict[int, str] = {}
    real_open, real_fsync, real_replace = os.open, os.fsync, os.replace

    def note_open(path: Any, *args: Any, **kwargs: Any) -> int:
        fd = real_open(path, *args, **kwargs)
        opened[fd] = Path(path).name
        return fd

    def note_fsync(fd: int) -> None:
        steps.append(("sync", opened[fd]))
        real_fsync(fd)

    def note_replace(source: Any, target: Any) -> None:
        steps.append(("rename", Path(source).name))
        real_replace(source, target)

    fill(store, "dl-1")
    monkeypatch.setattr(os, "open", note_open)
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    store.publish("dl-1", HASH)
    made = [("sync", store.root.name), ("sync", "blobs"), ("sync", "sha256")]  # their new sub-folders
    finish = [("sync", "dl-1.part"), ("rename", "dl-1.part"), ("sync", HASH[:2]), ("sync", "partial")]
    assert steps == made + finish
    steps.clear()
    store.name(HASH, "f.gguf")
    assert steps == [("sync", store.root.name), ("sync", "files")]


def test_adopted_content_stays_the_file_it_was(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(DATA)
    store.partials.mkdir(parents=True)
    os.link(theirs, store.adoption("dl-1"))
    blob = store.adopt("dl-1", HASH)
    assert blob.samefile(theirs)
    assert not store.adoption("dl-1").exists()
    assert store.release(HASH, []) == 0, "the other program still has it"
    assert theirs.read_bytes() == DATA


# -- names ----------------------------------------


@pytest.mark.parametrize("way", ["hard link", "reflink", "symbolic link", "copy"])
def test_a_blob_is_named_in_the_cheapest_way_there_is(store: Store, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    publish(store)
    ways = ["hard link", "reflink", "symbolic link", "copy"]
    if way != "hard link":
        monkeypatch.setattr(os, "link", refuse)

    def cloned(file: Path, copy: Path) -> bool:
        copy.write_bytes(file.read_bytes())
        return True

    monkeypatch.setattr(linking, "clone", cloned if way == "reflink" else lambda file, copy: False)
    if ways.index(way) > ways.index("symbolic link"):
        monkeypatch.setattr(os, "symlink", refuse)
    final = store.name(HASH, "Ein Modell – 模型.gguf")
    assert final.read_bytes() == DATA
    assert final.is_symlink() == (way == "symbolic link")
    assert final.samefile(store.blob(HASH)) == (way in ("hard link", "symbolic link"))
    assert store.name(HASH, "Ein Modell – 模型.gguf") == final, "doing it again does nothing"
    assert [path.name for path in store.files.iterdir()] == [final.name]
    assert list(store.partials.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_another_file_is_never_replaced_by_a_name(store: Store, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    publish(store)
    store.files.mkdir()
    strange = store.final("f.gguf")
    strange.write_bytes(b"x" * len(DATA))
    if not links:
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(DownloadConflict, match="another file"):
        store.name(HASH, "f.gguf")
    assert strange.read_bytes() == b"x" * len(DATA)
    assert list(store.partials.iterdir()) == []


def test_a_name_that_points_nowhere_is_not_replaced_either(store: Store) -> None:
    publish(store)
    store.files.mkdir()
    store.final("f.gguf").symlink_to("nowhere")
    with pytest.raises(DownloadConflict):
        store.name(HASH, "f.gguf")
    assert store.final("f.gguf").readlink() == Path("nowhere")


def test_a_blob_that_is_gone_cannot_be_named(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.name(HASH, "f.gguf")
    assert not store.final("f.gguf").is_symlink()


def test_a_copy_that_is_cut_off_leaves_no_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    publish(store)

    def full(source: Any, target: Any, length: int) -> None:
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(linking, "clone", lambda file, copy: False)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        store.name(HASH, "f.gguf")
    assert not store.final("f.gguf").exists()
    assert list(store.partials.iterdir()) == []


def test_a_clone_shares_its_blocks_or_is_not_made(tmp_path: Path) -> None:
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(DATA)
    if linking.clone(file, copy):
        assert copy.read_bytes() == DATA
        assert not copy.samefile(file)
    else:
        assert not copy.exists()


def test_a_deep_folder_and_the_longest_name_work(tmp_path: Path) -> None:
    root = tmp_path
    while len(str(root)) < 700:
        root = root / ("tief " + "ü" * 60)
    store = Store(root)
    publish(store)
    assert store.name(HASH, "x" * 195 + ".gguf").read_bytes() == DATA


# -- taking out of use, and removing ----------------------------------------


def test_a_damaged_blob_is_the_partial_file_again_and_has_no_name(store: Store, tmp_path: Path) -> None:
    publish(store)
    store.name(HASH, "f.gguf")
    store.name(HASH, "g.gguf")
    installed = tmp_path / "installed.gguf"
    os.link(store.blob(HASH), installed)
    store.withdraw(HASH, HASH)
    assert not store.blob(HASH).exists()
    assert list(store.files.iterdir()) == []
    assert store.partial(HASH).samefile(installed), "repairing it heals what is installed"
    store.withdraw(HASH, HASH)
    assert store.partial(HASH).exists(), "doing it again does nothing"


def test_a_damaged_blob_loses_names_that_are_symbolic_links_or_copies(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        patch.setattr(linking, "clone", lambda file, copy: False)
        store.name(HASH, "symbolic.gguf")
        patch.setattr(os, "symlink", refuse)
        store.name(HASH, "copy.gguf")
    store.final("strange.gguf").write_bytes(b"strange")
    store.withdraw(HASH, "dl-1", ["copy.gguf"])
    assert [path.name for path in store.files.iterdir()] == ["strange.gguf"]


def test_removing_says_what_is_truly_free(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    sha256 = publish(store, data)
    store.name(sha256, "f.gguf")
    before = store.free()
    freed = store.release(sha256, ["f.gguf"])
    assert len(data) <= freed <= len(data) + (1 << 16)
    assert store.free() > before - (1 << 30)  # other processes use the disk too: this only must not be absurd
    assert not store.blob(sha256).exists()
    assert not store.final("f.gguf").exists()
    assert store.release(sha256, ["f.gguf"]) == 0


def test_what_is_linked_elsewhere_frees_nothing(store: Store, tmp_path: Path) -> None:
    publish(store)
    store.name(HASH, "f.gguf")
    os.link(store.blob(HASH), tmp_path / "installed.gguf")
    assert store.release(HASH, ["f.gguf"]) == 0
    assert (tmp_path / "installed.gguf").read_bytes() == DATA


def test_a_name_goes_without_the_blob_that_others_need(store: Store) -> None:
    publish(store)
    store.name(HASH, "f.gguf")
    store.name(HASH, "g.gguf")
    assert store.release(HASH, ["f.gguf"], keep_blob=True) == 0
    assert not store.final("f.gguf").exists()
    assert store.final("g.gguf").samefile(store.blob(HASH))


@pytest.mark.parametrize("symbolic", [True, False])
def test_a_file_can_outlive_its_blob_under_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, symbolic: bool
) -> None:
    publish(store)
    with monkeypatch.context() as patch:
        if symbolic:
            patch.setattr(os, "link", refuse)
            patch.setattr(linking, "clone", lambda file, copy: False)
        store.name(HASH, "f.gguf")
    store.let_go(HASH, "f.gguf")
    assert not store.blob(HASH).exists()
    assert not store.final("f.gguf").is_symlink()
    assert store.final("f.gguf").read_bytes() == DATA


@pytest.mark.parametrize("symbolic", [True, False])
def test_a_name_that_was_let_go_outlives_the_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch, symbolic: bool
) -> None:
    publish(store)
    with monkeypatch.context() as patch:
        if symbolic:
            patch.setattr(os, "link", refuse)
            patch.setattr(linking, "clone", lambda file, copy: False)
        store.name(HASH, "kept.gguf")
        store.name(HASH, "f.gguf")
    assert store.release(HASH, ["f.gguf"]) == 0
    assert store.final("kept.gguf").read_bytes() == DATA
    assert not store.final("f.gguf").exists()
    assert store.blob(HASH).exists() == symbolic


# -- sweeping ----------------------------------------


def test_old_partial_files_of_nobody_go_and_what_is_under_way_stays(store: Store) -> None:
    day = 86_400
    for key in ("wanted", "old", "young"):
        fill(store, key)
    for name in ("half.adopt", "half.copy", "a note"):
        (store.partials / name).write_bytes(b"x")
        os.utime(store.partials / name, (0, 0))
    now = store.partial("young").stat().st_mtime
    for key in ("wanted", "old"):
        os.utime(store.partial(key), (now - 8 * day, now - 8 * day))
    os.utime(store.partial("young"), (now + day, now + day))  # the clock was wrong once
    rest = ["a note", "half.adopt", "half.copy", "wanted.part", "young.part"]
    assert store.sweep({"wanted"}, 7 * day) == 1
    assert sorted(path.name for path in store.partials.iterdir()) == rest
    assert store.sweep({"wanted"}, -2 * day) == 1
    store.clear_unfinished()
    assert sorted(path.name for path in store.partials.iterdir()) == ["a note", "wanted.part"]


def test_sweeping_an_empty_folder_does_nothing(store: Store) -> None:
    assert store.sweep(set(), 0) == 0
    store.clear_unfinished()


def test_space_that_a_partial_file_has_is_told(store: Store) -> None:
    assert store.held("dl-1") == 0
    store.open_partial("dl-1", 5_000_000).close()
    assert store.held("dl-1") in (0, *range(5_000_000, 5_100_000))  # 0 where the file system takes it as it fills
    fill(store, "dl-2")
    assert len(DATA) <= store.held("dl-2") <= len(DATA) + 65_536
    assert 0 < store.free() <= store.capacity()


# -- any order of steps ----------------------------------------

CONTENTS = [b"one" * 50, b"two" * 50]
NAMES = ["a.gguf", "b.gguf"]
WHICH = st.integers(0, 1)
STEP = st.tuples(st.sampled_from(["publish", "name", "withdraw", "remove", "unname", "sweep"]), WHICH, WHICH)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=20))
def test_blobs_are_what_their_name_says_and_names_are_of_blobs(
    tmp_path_factory: Any, steps: list[tuple[str, int, int]]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    hashes = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
    blobs: set[int] = set()
    names: dict[int, int] = {}

    def name(which: int, place: int) -> None:
        if which not in blobs:
            return
        if names.get(place, which) != which:
            with pytest.raises(DownloadConflict):
                store.name(hashes[which], NAMES[place])
            return
        store.name(hashes[which], NAMES[place])
        names[place] = which

    def forget(which: int, place: int) -> None:
        blobs.discard(which)
        for at in [at for at, content in names.items() if content == which]:
            del names[at]

    def again(which: int, place: int) -> None:
        if which not in blobs:  # the engine looks before it fetches
            fill(store, "k", CONTENTS[which])
            store.publish("k", hashes[which])
            blobs.add(which)

    def withdraw(which: int, place: int) -> None:
        store.withdraw(hashes[which], "w")
        forget(which, place)

    def remove(which: int, place: int) -> None:
        store.remove(hashes[which], [])
        forget(which, place)

    def unname(which: int, place: int) -> None:
        if names.get(place) == which:
            store.release(hashes[which], [NAMES[place]], keep_blob=True)
            del names[place]

    actions: dict[str, Callable[[int, int], object]] = {
        "publish": again, "name": name, "withdraw": withdraw, "remove": remove, "unname": unname,
        "sweep": lambda which, place: store.sweep(set(), -1.0),
    }  # fmt: skip
    for kind, which, place in steps:
        actions[kind](which, place)
        found = {path.name for path in store.blobs.rglob("*") if path.is_file()}
        assert found == {hashes[which] for which in blobs}
        assert all(sha256_of(store.blob(sha256)) == sha256 for sha256 in found)
        shown = {path.name: path.read_bytes() for path in store.files.glob("*")}
        assert shown == {NAMES[at]: CONTENTS[content] for at, content in names.items()}

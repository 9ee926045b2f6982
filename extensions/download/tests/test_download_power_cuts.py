"""The whole engine under simulated power cuts: real threads, a real server and journal, and a disk that forgets.

Beside the partial file stands an image of what a power cut would leave of it: only a sync brings bytes there, and only
those that were written before it began. A cut copies the image and what the journal has committed into a new folder, at
one moment, and a new run goes on with that. JAN_TEST_POWER_CUTS=1000 for the long run, `-s` shows what was counted.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jan_download.engine.stop import Stop, Stopped
from jan_download.engine.transfer import Transfer
from jan_download.integrity.piece_lists import PieceHashes
from jan_download.journal import Journal
from jan_download.limits import Bucket, Limits
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.records import Job, Piece
from jan_download.settings import DownloadSettings
from jan_download.storage import checkpoint
from jan_download.storage import store as store_module
from jan_download.storage.partial import Partial
from jan_download.storage.recovery import recover
from jan_download.storage.store import Store

from jan_core.types import DownloadSource

from .faults import Drop, Status
from .faultserver import FaultServer

CUTS = -(-int(os.environ.get("JAN_TEST_POWER_CUTS", 12)) // 3)
RATE = 20_000_000
PIECE = 1 << 18
SIZE = 6_000_000


class World:
    """What is durable at this moment; `lock` is held while that changes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.image = bytearray()


class Forgetful(Partial):
    """A partial file that keeps the image of what is durable up to date."""

    world: World

    def __init__(self, path: Path, size: int = 0) -> None:
        fresh = not path.exists()
        super().__init__(path, size)
        self._unsynced: list[tuple[int, bytes]] = []
        self._writing = threading.Lock()
        with self.world.lock:
            if fresh:
                self.world.image.clear()

    def write(self, data: memoryview | bytes, at: int) -> None:
        with self._writing:
            super().write(data, at)
            self._unsynced.append((at, bytes(data)))

    def sync(self) -> None:
        with self._writing:
            begun, self._unsynced = self._unsynced, []
        super().sync()
        with self.world.lock:
            for at, data in begun:
                self.world.image.extend(bytes(max(0, at + len(data) - len(self.world.image))))
                self.world.image[at : at + len(data)] = data


class Locked(Journal):
    """A journal in which nothing is committed while the power goes."""

    world: World

    def update(self, job_id: str, /, known: int | None = None, **changes: Any) -> Job | None:
        with self.world.lock:
            return super().update(job_id, known, **changes)

    def checkpoint(self, job_id: str, run: int, pieces: Any, /, **changes: Any) -> Job | None:
        with self.world.lock:
            return super().checkpoint(job_id, run, pieces, **changes)


class LockedStore(Store):
    """A store in which no blob is made while the power goes."""

    world: World

    def publish(self, key: str, sha256: str) -> Path:
        with self.world.lock:
            return super().publish(key, sha256)


class Machine:
    """One life of a machine, from power to power."""

    def __init__(self, root: Path, world: World, url: str, data: bytes, hashes: PieceHashes | None) -> None:
        self.root, self.world, self.url, self.data, self.hashes = root, world, url, data, hashes
        self.journal, self.store = Locked(root / "j.db"), LockedStore(root)
        self.journal.world = self.store.world = world
        self.stop = Stop()
        self.ended = threading.Event()
        self.error: Exception | None = None

    def begin(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:  # raised by the test, in its own thread
            self.error = error
        finally:
            self.ended.set()

    def _run(self) -> None:
        options = DownloadSettings(retry_first=0.01, retry_longest=0.02)
        while (job := self.job()).state != "completed" and not self.stop.is_set():
            started = self.journal.update(job.id, job.run, state="running", run=job.run + 1)
            assert started is not None
            try:
                Transfer(
                    job=started,
                    sources=[DownloadSource(self.url)],
                    hashes=self.hashes,
                    journal=self.journal,
                    store=self.store,
                    network=Network(options),
                    limits=Limits("dl-1", lambda: 0, Bucket(lambda: 0)),
                    options=options,
                    reserve=0,
                    report=lambda status: None,
                    stop=self.stop,
                ).run()
            except Unreachable:
                self.stop.wait(0.01)
            except Stopped:
                return

    def job(self) -> Job:
        job = self.journal.get("dl-1")
        assert job is not None
        return job

    def cut(self, root: Path, lucky: random.Random) -> None:
        """The power goes now; `root`: where what is left of this machine's disk will be."""
        root.mkdir()
        with self.world.lock:
            self._copy(root, lucky)
        self.stop.set()
        assert self.ended.wait(20)
        if self.error is not None:
            raise self.error
        self.journal.close()

    def _copy(self, root: Path, lucky: random.Random) -> None:
        with sqlite3.connect(self.journal.path) as old, sqlite3.connect(root / "j.db") as new:
            old.backup(new)
        old.close()
        new.close()
        for name in ("blobs", "files"):
            if (self.root / name).is_dir():
                shutil.copytree(self.root / name, root / name)
        for partial in self.store.partials.glob("*.part"):
            (root / "partial").mkdir()
            left = self.world.image.ljust(partial.stat().st_size, b"\0")
            seen = partial.read_bytes()
            for at in (block << 12 for block in range(len(left) >> 12) if lucky.random() < 0.1):
                left[at : at + 4096] = seen[at : at + 4096]  # blocks that reached the disk by chance
            (root / "partial" / partial.name).write_bytes(left)
            self.world.image = left

    def check(self, high: int) -> int:
        """Whether what is left holds together; the job's progress."""
        job, pieces = self.job(), self.journal.pieces("dl-1")
        assert job.high >= high
        for blob in filter(Path.is_file, self.store.blobs.rglob("*")):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        for named in self.store.files.glob("*"):
            assert named.read_bytes() == self.data
        partial = self.store.partial(job.partial)
        if partial.is_file():
            self._kept(partial.read_bytes(), pieces)
        return job.high

    def _kept(self, left: bytes, pieces: list[Piece]) -> None:
        length = self.hashes.length if self.hashes else 8 << 20
        for piece in pieces:
            begin = piece.index * length
            assert left[begin : begin + piece.length] == self.data[begin : begin + piece.length]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(rate=RATE, seed=29) as server:
        yield server


@pytest.mark.parametrize("known", ["hash and pieces", "hash", "nothing"])
def test_however_often_the_power_goes_the_file_comes_whole(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.setattr(store_module, "Partial", Forgetful)
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.02)
    cuts = files = wanted = 0
    while cuts < CUTS:
        rng, world = random.Random(f"{known} {files}"), World()
        Forgetful.world = world
        data = b"GGUF" + rng.randbytes(SIZE + rng.randrange(PIECE))
        url = server.serve("/f", data, Drop(after=rng.randrange(SIZE)).chance(0.1), Status(503).chance(0.05))
        digests = [hashlib.sha256(data[at : at + PIECE]).digest() for at in range(0, len(data), PIECE)]
        hashes = PieceHashes(PIECE, b"".join(digests)) if known == "hash and pieces" else None
        sha256 = hashlib.sha256(data).hexdigest()
        machine = Machine(tmp_path / f"{files} 0", world, url, data, hashes)
        wish = {"sha256": "", "size": 0} if known == "nothing" else {"sha256": sha256, "size": len(data)}
        key = "dl-1" if known == "nothing" else sha256
        machine.journal.add(Job(id="dl-1", name="f", url=url, destination="f", partial=key, **wish))  # type: ignore[arg-type]
        lives, high = 0, 0
        while True:
            assert recover(machine.journal, machine.store, resume=True, keep_partial_days=7).warnings == []
            high = machine.check(high)
            machine.begin()
            if machine.ended.wait(rng.uniform(0, 0.12)):
                break
            lives += 1
            root = tmp_path / f"{files} {lives}"
            machine.cut(root, rng)
            shutil.rmtree(machine.root)
            machine = Machine(root, world, url, data, hashes)
        if machine.error is not None:
            raise machine.error
        machine.check(len(data))
        job = machine.job()
        assert (job.state, job.actual, job.verified) == ("completed", sha256, known != "nothing")
        assert machine.store.final("f").read_bytes() == data
        machine.journal.close()
        shutil.rmtree(machine.root)
        cuts, files, wanted = cuts + lives, files + 1, wanted + len(data)
    again = server.sent("/f") - wanted
    print(f"\n{known} known: {cuts} power cuts, {files} files, {again / RATE / max(1, cuts):.3f} s of transfer per cut")

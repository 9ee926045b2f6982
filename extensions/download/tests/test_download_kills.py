"""A process that downloads and is killed again and again, at moments that a seed chooses, until the file is there.

Real processes, real signals, a server that fails now and then. After each kill: nothing unverified under `blobs/` or
`files/`, nothing promised by the journal that is not in the partial file, and progress that never went back. A few
kills by default; JAN_TEST_KILLS=500 for the long run, and `-s` shows what each kill cost: bytes that the server sent
and that were not counted as safe, those in the buffers of sockets included.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jan_download.journal import Journal
from jan_download.records import Job
from jan_download.storage.store import Store

from .faults import Drop, Fault, Flip, Status
from .faultserver import FaultServer
from .house import piece_list

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

KILLS = -(-int(os.environ.get("JAN_TEST_KILLS", 6)) // 3)
RATE = 25_000_000
SIZE = 20_000_000
PIECE = 1 << 20
PATIENCE = 60.0
PATH = "/model.bin"

CHILD = """
import sys, anyio, json
from pathlib import Path
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_download.plugin import DownloadExtension

async def main(data_dir, file):
    DownloadExtension.settle = 0.0
    source = InlineSource("download", DownloadExtension, ["downloads."])
    async with Host(Path(data_dir), sources=[source]) as host:
        await host.activate_startup()
        await host.client().call("downloads.start", {"file": json.loads(file), "wait": True})

anyio.run(main, *sys.argv[1:])
"""


@dataclass
class Tally:
    """What was counted. `lost`: seconds of transfer at RATE, of each kill."""

    kills: int = 0
    files: int = 0
    sent: int = 0
    wanted: int = 0
    lost: list[float] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        again = self.sent - self.wanted
        ordered = sorted(self.lost) or [0.0]
        return (
            f"{self.kills} kills, {self.files} files, states when killed: {self.states}; "
            f"{again / 1e6:.1f} MB fetched again, {again / RATE / max(1, self.kills):.3f} s of transfer per kill; "
            f"of each kill: median {statistics.median(ordered):.3f} s, "
            f"95 % {ordered[-(-95 * len(ordered) // 100) - 1]:.3f} s, worst {ordered[-1]:.3f} s"
        )


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(rate=RATE, seed=17) as server:
        yield server


class Victim:
    """A data folder, and processes that download one file into it."""

    def __init__(self, root: Path, server: FaultServer, data: bytes, file: dict[str, Any]) -> None:
        self.root, self.server, self.data, self.file = root, server, data, file
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.high = self.offset = 0
        root.mkdir()
        settings = {"reserve_bytes": 0, "retry_first": 0.02, "retry_longest": 0.05, "adopt": False}
        (root / "settings.json").write_text(json.dumps({"download": settings}))

    def lives(self, rng: random.Random, *, spared: bool) -> bool:
        """Run a process until it has brought the file, or, unless `spared`, is killed before; whether it was killed."""
        start = self.server.sent(PATH)
        command = [sys.executable, "-c", CHILD, str(self.root), json.dumps(self.file)]
        moment = rng.random()
        if moment < 0.75:  # while bytes come
            sent, delay = start + rng.randrange(1, RATE // 3), 0.0
        elif moment < 0.9:  # about the end: the last bytes, the hash, the blob, its name, its row
            missing = len(self.data) - self.offset
            sent, delay = start + max(0, missing - rng.randrange(1, RATE // 50)), rng.uniform(0, 0.1)
        else:  # at any time, while it starts and looks at what there is too
            sent, delay = 0, rng.uniform(0, 1.5)
        with subprocess.Popen(command) as child:
            try:
                self._watch(child, sent, delay, spared)
            finally:
                child.kill()
        self.server.wait_idle()
        return child.returncode != 0

    def _watch(self, child: subprocess.Popen[bytes], sent: int, delay: float, spared: bool) -> None:
        """Until it ends, by itself or, `delay` seconds after the server had sent `sent` bytes, by a signal."""
        end, due = time.monotonic() + PATIENCE, 0.0
        while child.poll() is None:
            now = time.monotonic()
            assert now < end, "it came neither to its end nor to the moment at which to kill it"
            if not due and self.server.sent(PATH) >= sent:
                due = now + delay
            if due and now >= due and not spared:
                child.send_signal(signal.SIGKILL)
            try:
                child.wait(0.002)
            except subprocess.TimeoutExpired:
                continue
        assert child.returncode in (0, -signal.SIGKILL)

    def check(self) -> Job | None:
        """Look at what a process left; the job, if there is one by now."""
        folder = self.root / "download"
        store, journal = Store(folder), Journal(folder / "downloads.db")
        for blob in filter(Path.is_file, store.blobs.rglob("*")):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        for named in store.files.glob("*"):
            assert named.read_bytes() == self.data
        try:
            job = journal.jobs()[0] if journal.exists and journal.jobs() else None
            assert journal.recovered == ""
            if job is not None:
                self._promises(job, journal, store)
        finally:
            journal.close()
        return job

    def _promises(self, job: Job, journal: Journal, store: Store) -> None:
        assert self.high <= job.high <= len(self.data)
        assert job.offset <= job.high
        self.high, self.offset = job.high, job.offset
        pieces = journal.pieces(job.id)
        length = job.piece_list.length if job.piece_list else 8 << 20
        if job.state == "completed" or store.blob(self.sha256).exists():
            return
        assert job.offset == sum(piece.length for piece in pieces)
        partial = store.partial(job.partial).read_bytes() if pieces else b""
        for piece in pieces:
            begin = piece.index * length
            assert partial[begin : begin + piece.length] == self.data[begin : begin + piece.length]


@pytest.mark.parametrize("known", ["hash and pieces", "hash", "nothing"])
def test_however_often_it_is_killed_the_file_comes_whole_and_little_is_fetched_twice(
    server: FaultServer, tmp_path: Path, known: str
) -> None:
    tally = Tally()
    while tally.kills < KILLS:
        rng = random.Random(f"{known} {tally.files}")
        data = rng.randbytes(SIZE + rng.randrange(PIECE))
        already = server.sent(PATH)
        faults: list[Fault] = [Drop(after=rng.randrange(SIZE)).chance(0.1), Status(503).chance(0.05)]
        if known == "hash and pieces":  # else one wrong bit costs the whole file
            faults.append(Flip(rng.randrange(SIZE)).chance(0.1))
        file: dict[str, Any] = {"name": "model.bin", "url": server.serve(PATH, data, *faults)}
        if known != "nothing":
            file |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        if known == "hash and pieces":
            file["pieces"] = msgspec.to_builtins(piece_list(server, data, length=PIECE))
        victim = Victim(tmp_path / f"data {tally.files}", server, data, file)
        safe, sent = 0, already
        while victim.lives(rng, spared=tally.kills >= KILLS):
            job = victim.check()
            tally.kills += 1
            state = job.state if job is not None else "not begun"
            tally.states[state] = tally.states.get(state, 0) + 1
            now, came = (job.offset if job is not None else 0), server.sent(PATH)
            tally.lost.append(max(0, came - sent - (now - safe)) / RATE)
            safe, sent = now, came
        job = victim.check()
        assert job is not None
        assert (job.state, job.actual, job.verified) == ("completed", victim.sha256, known != "nothing")
        assert (victim.root / "download" / "files" / "model.bin").read_bytes() == data
        assert list((victim.root / "download" / "partial").iterdir()) == []
        tally.files += 1
        tally.sent += server.sent(PATH) - already
        tally.wanted += len(data)
        shutil.rmtree(victim.root)
    print(f"\n{known} known: {tally}")
    assert (tally.sent - tally.wanted) / RATE / tally.kills <= 1, str(tally)

"""What a run of the engine needs, on a real disk, and a file for it to fetch."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from jan_download.engine.pieces import decode
from jan_download.engine.stop import Stop, Stopped
from jan_download.engine.transfer import Transfer
from jan_download.integrity.piece_lists import PieceHashes
from jan_download.journal import Journal
from jan_download.limits import Bucket, Limits
from jan_download.network.network import Network
from jan_download.records import Job
from jan_download.settings import DownloadSettings
from jan_download.status import Status as Standing
from jan_download.storage.store import Store

from jan_core.types import DownloadSource

__all__ = ["DATA", "LENGTH", "OTHER", "SHA256", "SIZE", "Desk", "hashes_of", "stopped_after"]

LENGTH = 256 << 10
SIZE = 24 * LENGTH - 1000
DATA = (
    b"GGUF" + (3).to_bytes(4, "little") + (7).to_bytes(8, "little") * 2 + hashlib.shake_256(b"model").digest(SIZE - 24)
)
OTHER = (
    b"GGUF" + (3).to_bytes(4, "little") + (8).to_bytes(8, "little") * 2 + hashlib.shake_256(b"else").digest(SIZE - 24)
)
SHA256 = hashlib.sha256(DATA).hexdigest()


def hashes_of(data: bytes, length: int = LENGTH) -> PieceHashes:
    digests = [hashlib.sha256(data[at : at + length]).digest() for at in range(0, len(data), length)]
    return PieceHashes(length, b"".join(digests))


class Desk:
    """What a run needs, on a real disk; `told` is every Status it reported."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.store = Journal(folder / "journal.db"), Store(folder / "data")
        self.told: list[Standing] = []
        self.more: Callable[[], list[DownloadSource]] = list
        self.stop = Stop()
        self.heard = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        for status in self.told:
            decode(status.pieces)

    def job(self, *urls: str, **fields: Any) -> Job:
        known: dict[str, Any] = {"sha256": SHA256, "size": SIZE, "name": "model.gguf", "destination": "model.gguf"}
        known |= fields
        job = Job(id="dl-1", url=urls[0], partial=known["sha256"] or "dl-1", state="running", **known)
        self.journal.add(job)
        return job

    def run(
        self, *urls: str, hashes: PieceHashes | None = None, limit: int = 0, reserve: int = 0, **settings: Any
    ) -> Job:
        """Run the job that is in the journal."""
        job = self.journal.get("dl-1")
        assert job is not None
        options = DownloadSettings(**({"retry_first": 0.02, "retry_longest": 0.05, "stall_timeout": 5.0} | settings))
        self.stop = Stop()
        return Transfer(
            job=job,
            sources=[DownloadSource(url, priority=n) for n, url in enumerate(urls)],
            hashes=hashes,
            journal=self.journal,
            store=self.store,
            network=Network(options),
            limits=Limits("dl-1", lambda: limit, Bucket(lambda: 0)),
            options=options,
            reserve=reserve,
            report=self.report,
            more_sources=lambda: self.more(),
            stop=self.stop,
        ).run()

    def report(self, status: Standing) -> None:
        with self.heard:
            self.told.append(status)
            self.heard.notify_all()

    def fetch(self, *urls: str, hashes: PieceHashes | None = None, **fields: Any) -> Job:
        self.job(*urls, **fields)
        return self.run(*urls, hashes=hashes)

    def content(self) -> bytes:
        return self.store.final("model.gguf").read_bytes()

    def state(self, host: str) -> str:
        return next(each.state for each in self.told[-1].sources if each.id.startswith(host))


def stopped_after(desk: Desk, reached: Callable[[], bool], url: str, hashes: PieceHashes | None = None) -> float:
    """Run until something is so, stop, and say how long that took."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            desk.run(url, hashes=hashes, stall_timeout=60.0)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    with desk.heard:
        assert desk.heard.wait_for(lambda: bool(desk.told) and reached(), 10)
    began = time.monotonic()
    desk.stop.set()
    thread.join(10)
    assert [type(error) for error in ended] == [Stopped]
    return time.monotonic() - began

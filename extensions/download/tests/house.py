"""A host with the extension in it, as a client sees it, and what must hold whatever a test does to it.

At the end of each house its whole store is looked at: a blob is named by what it holds, and what stands in `files/` is
the file of a completed download. And of each download's events: `bytes_done` never goes back, nor beyond the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from jan_download.plugin import DownloadExtension

from jan_core import hookimpl
from jan_core.testing import InlineSource
from jan_core.types import DownloadFile, DownloadSource, PieceList

from .faultserver import FaultServer

__all__ = ["PIECE", "House", "Mirrors", "OpenHouse", "content", "happens", "house_opener", "piece_list", "sha256"]

PIECE = 128 << 10
"""The length of a piece where a test publishes hashes of pieces: small, so that many fit in little data."""
SETTINGS = {"reserve_bytes": 0, "retry_first": 0.02, "retry_longest": 0.05}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(job: dict[str, Any]) -> bytes:
    """What stands under the name of a complete download."""
    return Path(job["path"]).read_bytes()


def piece_list(server: FaultServer, data: bytes, path: str = "/pieces", length: int = PIECE) -> PieceList:
    """Publish the hashes of the pieces of `data` on a server."""
    hashes = [hashlib.sha256(data[at : at + length]).digest() for at in range(0, len(data), length)]
    text = b"".join(hashes)
    return PieceList(length=length, count=len(hashes), sha256=sha256(text), url=server.serve(path, text))


async def happens(wait: Callable[..., None], *args: Any) -> None:
    """Wait for what a server tells, such as `server.wait_held`, without stopping the host."""
    await anyio.to_thread.run_sync(partial(wait, *args), abandon_on_cancel=True)


class Mirrors:
    """An extension that knows where else a file can be had."""

    def __init__(self, *sources: DownloadSource | str) -> None:
        self.sources = [DownloadSource(each) if isinstance(each, str) else each for each in sources]

    @hookimpl
    def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
        return self.sources


class Prompt(DownloadExtension):
    """The extension, going on with what was interrupted at once."""

    settle = 0.0


class House:
    """A running host, its events, and ways to wait for them."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.client = host.client()
        self.data_dir: Path = host.data_dir / "download"
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._changed = anyio.Event()

    def hear(self, event: Any) -> None:
        if event.name == "downloads.changed":
            self.events.append(event.data)
            self.times.append(time.monotonic())
            self._changed.set()
            self._changed = anyio.Event()

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(f"downloads.{method}", params)

    def file(
        self, url: str, data: bytes | None = None, *, name: str = "model.bin", pieces: PieceList | None = None
    ) -> dict[str, Any]:
        """A file as `start` and `start_group` take it; with `data`, its hash and size are known."""
        known = {} if data is None else {"sha256": sha256(data), "size": len(data)}
        listed = {} if pieces is None else {"pieces": msgspec.to_builtins(pieces)}
        return {"name": name, "url": url, **known, **listed}

    async def start(
        self,
        url: str,
        data: bytes | None = None,
        *,
        name: str = "model.bin",
        pieces: PieceList | None = None,
        **params: Any,
    ) -> Any:
        return await self.call("start", file=self.file(url, data, name=name, pieces=pieces), **params)

    async def fetch(self, url: str, data: bytes | None = None, **params: Any) -> dict[str, Any]:
        """Start a download and wait for its end. Raises what it fails with."""
        with anyio.fail_after(20):
            job: dict[str, Any] = await self.start(url, data, wait=True, **params)
        return job

    async def one(self, method: str, job_id: str, **params: Any) -> dict[str, Any]:
        """Call what answers with the downloads that were meant, where one is."""
        [job] = (await self.call(method, id=job_id, **params))["downloads"]
        return dict(job)

    async def until(self, job_id: str, *states: str, done: int = 0) -> dict[str, Any]:
        """Wait until a job was seen in one of `states` (with at least `done` bytes)."""
        return await self.see(job_id, lambda job: job["state"] in states and job["bytes_done"] >= done)

    async def see(self, job_id: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a job is as `true` says, and return it."""
        job: dict[str, Any] = {}
        with anyio.move_on_after(20):
            while True:
                changed = self._changed
                job = await self.call("get", id=job_id)
                if true(job):
                    return job
                await changed.wait()
        raise AssertionError(f"this did not come to be; the job is {job}")

    def events_of(self, job_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["id"] == job_id]

    async def check(self) -> None:
        """What holds of any house, at any time."""
        for job_id in {event["id"] for event in self.events}:
            told = [(event["bytes_done"], event["bytes_total"]) for event in self.events_of(job_id)]
            for (before, _), (done, total) in pairwise(told):
                # A server that has a smaller file by now is the one reason.
                assert done >= min(before, total or before), f"progress went back: {told}"
            assert all(done <= (total or done) for done, total in told), f"more than there is: {told}"
        await anyio.to_thread.run_sync(check_store, self.data_dir, await self.call("list"))


def check_store(data_dir: Path, listed: dict[str, Any]) -> None:
    """Raises AssertionError where something stands among the complete files that is none."""
    for blob in (data_dir / "blobs").rglob("*"):
        assert blob.is_dir() or sha256(blob.read_bytes()) == blob.name, f"a blob is not what its name says: {blob}"
    hashes = {job["destination"]: job["actual_sha256"] for job in listed["downloads"] if job["state"] == "completed"}
    for path in (data_dir / "files").glob("*"):
        assert hashes.get(path.name) == sha256(path.read_bytes()), f"{path} is no complete download"


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


def house_opener(open_host: Any, folder: Path, *, plugins: Sequence[object] = ()) -> OpenHouse:
    """`open_house(*other_extensions, **settings)`: a house in `folder`; the same data folder each time.

    `checked=False`: what must hold is not looked at when it closes, because the test has put something else there.
    """

    def settle(settings: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps({"download": SETTINGS | settings}))

    @asynccontextmanager
    async def opener(*others: object, checked: bool = True, **settings: Any) -> AsyncIterator[House]:
        settle(settings)
        sources = [InlineSource("download", Prompt, ["downloads."])]
        sources += [InlineSource(f"other{i}", other) for i, other in enumerate((*plugins, *others))]
        async with open_host(sources=sources, data_dir=folder) as host:
            house = House(host)
            with host.bus.subscribe(house.hear):
                yield house
                if checked:
                    await house.check()

    return opener

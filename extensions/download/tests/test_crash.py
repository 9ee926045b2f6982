"""A process that is killed in the middle of a download: what is fetched again, and what is never seen."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_download.errors import BadSource
from jan_download.journal import Journal
from jan_download.records import Job
from jan_download.stop import Stop
from jan_download.store import Store
from jan_download.transfer import Transfer
from jan_download.transport import Transport

from jan_core.types import DownloadSource

from .conftest import OpenHouse, Request, Web, content, sha256, whole

pytestmark = pytest.mark.anyio

CHILD = """
import sys, anyio, json
from pathlib import Path
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_download.plugin import DownloadExtension

async def main(data_dir, file):
    source = InlineSource("download", DownloadExtension, ["downloads."])
    async with Host(Path(data_dir), sources=[source]) as host:
        await host.activate_startup()
        await host.client().call("downloads.start", {"file": json.loads(file), "wait": True})

anyio.run(main, *sys.argv[1:])
"""

RATE = 8_000_000  # bytes/s, as `Paced` sends


class Paced:
    """Sends like `whole`, at about RATE, and says when it came to `target`. `sent` is how far it came."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.target = self.sent = 0
        self.reached = threading.Event()

    def __call__(self, request: Request) -> None:
        start, step, tick = request.asked(), 80_000, threading.Event()
        where = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        headers = {"Content_Length": len(self.data) - start, "ETag": '"v1"'}
        request.head(206, Content_Range=where, **headers) if start else request.head(200, **headers)
        for at in range(start, len(self.data), step):
            request.wfile.write(self.data[at : at + step])
            self.sent = at + step
            if self.sent >= self.target:
                self.reached.set()
            tick.wait(step / RATE)

    def kill_at(self, target: int, command: list[str]) -> int:
        """Run a process, SIGKILL it when it was sent `target` bytes of the file, and say how far it came."""
        self.target = target
        self.reached.clear()
        with subprocess.Popen(command) as child:
            try:
                assert self.reached.wait(30), "the process did not get that far"
            finally:
                child.send_signal(signal.SIGKILL)
        return self.sent


async def test_a_killed_process_costs_at_most_a_second_of_transfer(
    open_house: OpenHouse, web: Web, tmp_path: Path
) -> None:
    import json

    data = random.Random(1).randbytes(14_000_000)
    paced = Paced(data)
    file = {"name": "model.gguf", "url": web.on(paced), "sha256": sha256(data), "size": len(data)}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.json").write_text('{"download": {"reserve_bytes": 0}}')
    command = [sys.executable, "-c", CHILD, str(tmp_path / "data"), json.dumps(file)]
    # A checkpoint comes about every 2 MB: once shortly after one, once shortly before one, once in between.
    lost = [await anyio.to_thread.run_sync(paced.kill_at, at, command) for at in (3_000_000, 5_900_000, 9_000_000)]
    async with open_house() as house:
        [job] = (await house.call("list"))["downloads"]
        job = await house.until(job["id"], "completed")
        assert content(job) == data
        assert job["verified"] is True
        assert job["bytes_discarded"] == 0
    resumed = [int((value or "bytes=0-")[6:-1]) for value in web.headers("Range")]
    assert len(resumed) == 4
    for before, after in zip(lost, resumed[1:], strict=True):
        assert 0 <= after <= before
        assert before - after <= RATE, "more than a second of transfer was fetched twice"


@pytest.fixture
def make_transfer(tmp_path: Path, web: Web) -> Any:
    """A run by itself, without a host: `make_transfer(job fields…)`."""
    journal, store = Journal(tmp_path / "j.db"), Store(tmp_path)
    transfers = []

    def make(**fields: Any) -> Transfer:
        if (job := journal.get("dl-1")) is None:
            defaults: dict[str, Any] = {
                "id": "dl-1",
                "name": "f",
                "url": web.url(),
                "sha256": "",
                "size": 0,
                "destination": "f",
                "partial": "dl-1",
            }
            journal.add(Job(**(defaults | fields)))
        elif fields:
            journal.update("dl-1", **fields)
        job = journal.get("dl-1")
        assert job is not None
        transfer = Transfer(
            job=job, sources=[DownloadSource(web.url())], journal=journal, store=store, reserve=0,
            transport=Transport(5, 5), report=lambda job: None, stop=Stop(),
        )  # fmt: skip
        transfers.append(transfer)
        return transfer

    yield make
    journal.close()


def test_a_kill_between_the_final_name_and_the_journal_is_made_good(
    make_transfer: Any, web: Web, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.on(whole(data))
    transfer = make_transfer()

    class Killed(BaseException):
        pass

    def die(self: Transfer) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Transfer, "_complete", die)
        with pytest.raises(Killed):
            transfer.run()
    again = make_transfer()
    assert again.job.state == "verifying"
    done = again.run()
    assert (done.state, done.actual) == ("completed", sha256(data))
    assert len(web.requests) == 1


def test_a_strange_file_under_the_final_name_is_not_taken_for_ours(
    make_transfer: Any, web: Web, data: bytes, tmp_path: Path
) -> None:
    from jan_download.errors import DownloadConflict

    web.on(whole(data))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "f").write_bytes(b"strange")
    with pytest.raises(DownloadConflict):
        make_transfer(actual=sha256(data)).run()
    assert (tmp_path / "files" / "f").read_bytes() == b"strange"


def test_bytes_past_the_journaled_offset_are_not_trusted(
    make_transfer: Any, web: Web, data: bytes, tmp_path: Path
) -> None:
    web.on(whole(data))
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "dl-1.partial").write_bytes(data[:1_000_000] + b"\0" * 500_000)
    transfer = make_transfer(offset=1_000_000, total=len(data), validator='"v1"', source=web.url(), sha256=sha256(data))
    assert transfer.run().state == "completed"
    assert (tmp_path / "files" / "f").read_bytes() == data
    assert web.headers("Range") == ["bytes=1000000-"]


def test_a_partial_file_that_is_shorter_than_the_journal_says_costs_only_what_is_missing(
    make_transfer: Any, web: Web, data: bytes, tmp_path: Path
) -> None:
    web.on(whole(data))
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "dl-1.partial").write_bytes(data[:400_000])
    transfer = make_transfer(offset=1_000_000, total=len(data), validator='"v1"', source=web.url(), sha256=sha256(data))
    job = transfer.run()
    assert job.discarded == 600_000
    assert (tmp_path / "files" / "f").read_bytes() == data
    assert web.headers("Range") == ["bytes=400000-"]


def test_a_run_whose_job_was_changed_by_somebody_else_ends_without_a_trace(
    make_transfer: Any, web: Web, data: bytes, tmp_path: Path
) -> None:
    from jan_download.checkpoint import Superseded

    web.on(whole(data))
    transfer = make_transfer()
    transfer.journal.update("dl-1", state="paused", run=7)
    with pytest.raises(Superseded):
        transfer.run()
    job = transfer.journal.get("dl-1")
    assert (job.state, job.offset) == ("paused", 0)
    assert not (tmp_path / "files").exists()


def test_a_redirect_from_https_to_http_is_refused() -> None:
    from jan_download.transport import _redirect

    assert _redirect("https://a/x", "/y") == "https://a/y"
    assert _redirect("http://a/x", "https://b/y") == "https://b/y"
    for target in ("http://a/x", "file:///x", "http://"):
        with pytest.raises(BadSource):
            _redirect("https://a/x", target)
    with pytest.raises(BadSource):
        _redirect("https://a/x", "")

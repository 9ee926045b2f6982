"""What is shown of a run that takes a large file from this machine in."""

from __future__ import annotations

import hashlib
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from jan_download.adopt import taking
from jan_download.engine.stop import Stop
from jan_download.journal import Journal
from jan_download.limits import Bucket, Limits
from jan_download.records import Job
from jan_download.run import Work
from jan_download.settings import DownloadSettings
from jan_download.shapes import Download
from jan_download.status import Status
from jan_download.storage.store import Store

from jan_core.types import AdoptedFile

STEP = 1 << 20
CONTENT = random.Random(3).randbytes(3 * STEP + 5)


def test_how_much_of_a_copy_was_hashed_is_told_while_it_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_STEP", STEP)
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(CONTENT)
    journal, told = Journal(tmp_path / "downloads.db"), list[Status]()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    known: dict[str, Any] = {"sha256": sha256, "partial": sha256, "size": len(CONTENT)}
    job = Job(id="dl-1", name="n", url="", destination="n", state="running", **known)
    journal.add(job)
    work = Work(
        job=job,
        journal=journal,
        store=Store(tmp_path),
        settings=DownloadSettings(),
        limits=Limits("dl-1", lambda: 0, Bucket(lambda: 0)),
        reserve=0,
        stop=Stop(),
        log=logging.getLogger(__name__),
        look=True,
        copies=lambda: [AdoptedFile(str(theirs), "them")],
        sources=list,
        missing=lambda job: 0,
        report=told.append,
    )
    assert work.run().state == "completed"
    journal.close()
    shown = [Download.of(status.job, "", status=status) for status in told]
    assert {each.state for each in shown} == {"verifying"}
    assert [each.bytes_verified for each in shown] == [0, STEP, 2 * STEP, 3 * STEP, len(CONTENT)]
    assert {each.bytes_done for each in shown} == {0}  # of the file that was asked for nothing is known to be there

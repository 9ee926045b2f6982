"""A disk that is full to the last byte: what was journaled can still be read, and what cannot be written says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from jan_download.journal import Journal

from .test_journal import job

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")

CHILD = """
import resource, shutil, sys
from pathlib import Path
from types import SimpleNamespace
from jan_core import StorageError
from jan_download.journal import Journal

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # nothing can be written, as on a full disk
free = int(sys.argv[2])
shutil.disk_usage = lambda path: SimpleNamespace(free=free)
journal = Journal(Path(sys.argv[1]))
print([job.id for job in journal.jobs()])
try:
    journal.update("dl-1", state="paused")
except StorageError as error:
    print(error.message)
print(journal.get("dl-1").state)
journal.close()
"""


@pytest.mark.parametrize(("free", "why"), [(0, "the disk is full"), (1 << 30, "disk I/O error")])
def test_what_is_journaled_can_be_read_when_nothing_can_be_written(tmp_path: Path, free: int, why: str) -> None:
    path = tmp_path / "downloads.db"
    journal = Journal(path)
    journal.add(job("dl-1", state="queued"))
    journal.close()
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(free)], capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout.splitlines() == ["['dl-1']", f"the download journal {path}: {why}", "queued"]
    assert [each.id for each in journal.jobs()] == ["dl-1"]
    journal.close()

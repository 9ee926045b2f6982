"""Whatever a server does, in whatever order: the file that comes out is the right one, or none."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_download.journal import Journal
from jan_download.records import Job
from jan_download.store import Store
from jan_download.transfer import Transfer
from jan_download.transport import Transport, Unreachable

from jan_core import JanError
from jan_core.types import DownloadSource

from .conftest import Reply, Request, Web, error, rangeless, sha256, whole

DATA = random.Random(3).randbytes(300_000)
OTHER = DATA[::-1]


def part(content: bytes, content_range: str, start: int, end: int) -> Reply:
    """A 206 that says what it likes, whatever was asked."""

    def reply(request: Request) -> None:
        request.head(206, Content_Length=end - start, Content_Range=content_range, ETag='"v1"')
        request.wfile.write(content[start:end])

    return reply


def unsized(content: bytes, drop_at: int | None) -> Reply:
    """No Content-Length: the end of the connection is the end of the file, or not."""

    def reply(request: Request) -> None:
        request.head(200, Connection="close")
        request.wfile.write(content[:drop_at])

    return reply


offsets = st.integers(0, len(DATA))
contents = st.sampled_from([DATA, OTHER, DATA[:-1], DATA + b"x", b""])
etags = st.sampled_from(['"v1"', '"v2"', 'W/"v1"', "junk"])
replies = st.one_of(
    st.builds(whole, contents, etag=etags, drop_at=st.none() | offsets),
    st.builds(whole, st.just(DATA), etag=etags, drop_at=offsets),
    st.builds(rangeless, contents, drop_at=st.none() | offsets),
    st.builds(unsized, contents, st.none() | offsets),
    st.builds(error, st.sampled_from([500, 503, 429, 416, 404, 403, 200, 206, 204, 301])),
    st.builds(
        lambda content, first, last, total: part(content, f"bytes {first}-{last}/{total}", min(first, last), last + 1),
        contents, offsets, offsets, st.sampled_from([len(DATA), 5, "*"]),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def any_web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(replies, max_size=5), st.booleans())
def test_the_right_file_comes_out_or_none(any_web: Web, sequence: list[Reply], sized: bool) -> None:
    any_web.on(*sequence, whole(DATA))
    with tempfile.TemporaryDirectory() as folder:
        journal, store = Journal(Path(folder) / "j.db"), Store(Path(folder))
        job: Any = Job(
            id="a", name="f", url=any_web.url(), sha256=sha256(DATA), size=len(DATA) if sized else 0, destination="f",
            partial="a",
        )  # fmt: skip
        journal.add(job)
        seen = [0]
        for _ in range(2 * len(sequence) + 2):
            transfer = Transfer(
                job=job, sources=[DownloadSource(any_web.url())], journal=journal, store=store, reserve=0,
                transport=Transport(5, 5, {}), report=lambda now: seen.append(now.high),
            )  # fmt: skip
            try:
                transfer.run()
            except (Unreachable, JanError):
                assert not store.final("f").exists()
            job = journal.get("a")
            seen.append(job.high)
            if job.state == "completed":
                break
        journal.close()
        assert job.state == "completed"
        assert store.final("f").read_bytes() == DATA
        assert seen == sorted(seen)

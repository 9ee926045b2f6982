"""Any mixture of faults over any number of sources: the right file comes out, or an error with a name; nothing
unverified ever stands among the complete files. `JAN_TEST_FAULTS=200` for a long run; each seed is a case of its own.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack

import anyio
import pytest

from jan_core.types import DownloadSource

from .faults import (
    Chunked,
    Close,
    Drop,
    Encoded,
    ETag,
    Fault,
    Flip,
    Garbage,
    Hold,
    HtmlPage,
    IgnoreIfRange,
    NoLength,
    NoRanges,
    Other,
    Shifted,
    SlowHead,
    Status,
    Trickle,
    WrongLength,
    WrongRange,
)
from .faultserver import FaultServer
from .house import Mirrors, OpenHouse, content, piece_list

CASES = int(os.environ.get("JAN_TEST_FAULTS", "8"))
TYPED = {"source_unauthorized", "source_not_found", "hash_mismatch", "bad_source"}


def any_fault(chance: random.Random, data: bytes) -> Fault:
    """One fault, of which it is not known when and how often it strikes."""
    at = chance.randrange(len(data))
    fault: Fault = chance.choice(
        [
            Drop(at=at),
            Drop(after=chance.randrange(1_000_000), reset=chance.random() < 0.5),
            Hold(at=at),
            SlowHead(),
            Trickle(chance.choice([100_000, 2_000_000])),
            Close(),
            Garbage(),
            Flip(at),
            Flip(rate=1e-6),
            Shifted(chance.choice([1, -1, 4096])),
            Other(data[::-1], chance.choice(['"v1"', '"v2"'])),
            Other(data[:-1], '"v2"'),
            ETag(chance.choice(['W/"v1"', "", '"v2"'])),
            WrongRange(first=chance.choice([-1, 0, 1]), last=chance.choice([0, 1]), total=chance.choice([0, 5])),
            WrongRange(text=chance.choice(["", "bytes */*", "bytes 0-0/1", "items 1-2/3"])),
            WrongLength(by=chance.choice([-1, 1, 100_000])),
            Chunked(),
            NoLength(),
            NoRanges(),
            IgnoreIfRange(),
            Encoded(),
            HtmlPage(),
            Status(chance.choice([401, 403, 404, 416, 429, 500, 503, 204])),
        ]
    )
    how = chance.randrange(5)
    if how == 0:
        return fault.only(chance.randrange(4))
    if how == 1:
        return fault.until(chance.randrange(1, 4))
    if how == 2:
        return fault.since(chance.randrange(3))
    if how == 3:
        return fault.chance(0.3)
    return fault.times(chance.randrange(1, 3))


@pytest.mark.parametrize("seed", range(CASES))
async def test_the_right_file_comes_out_or_an_error_with_a_name(open_house: OpenHouse, big: bytes, seed: int) -> None:
    chance = random.Random(f"faults {seed}")
    data = big[: chance.choice([300_000, 3_000_000, 20_000_000])]
    known = chance.random() < 0.85
    with ExitStack() as stack:
        servers = [stack.enter_context(FaultServer(seed=seed)) for _ in range(chance.randrange(1, 5))]
        urls = [
            each.serve("/f", data, *(any_fault(chance, data) for _ in range(chance.randrange(4)))) for each in servers
        ]
        sources = [DownloadSource(url, priority=number) for number, url in enumerate(urls[1:])]
        listed = known and chance.random() < 0.6
        pieces = piece_list(servers[0], data, length=chance.choice([1 << 16, 1 << 18, 1 << 20])) if listed else None
        async with open_house(Mirrors(*sources), stall_timeout=0.3, max_connections=chance.choice([1, 3, 8])) as house:
            job = await house.start(urls[0], data if known else None, pieces=pieces)
            with anyio.move_on_after(3):
                for what in chance.choices(["pause", "nothing"], k=chance.randrange(3)):
                    await house.until(job["id"], "completed", "failed", done=1)
                    if what == "pause" and (await house.call("get", id=job["id"]))["state"] == "running":
                        await house.call("pause", id=job["id"])
                        await house.call("resume", id=job["id"])
                job = await house.until(job["id"], "completed", "failed")
            if (job := await house.call("get", id=job["id"]))["state"] == "failed":
                assert job["error"]["type"] in TYPED, job["error"]
            for server in servers:  # every trouble ends; what was right so far must be of use then
                server.faults("/f")
                server.release()
            if job["state"] not in ("completed", "failed"):
                await house.call("resume", id=job["id"])
                job = await house.until(job["id"], "completed", "failed")
            if job["state"] == "failed":
                await house.call("resume", id=job["id"])
                job = await house.until(job["id"], "completed")
            assert job["verified"] is known
            assert content(job) == data or not known  # nobody can tell then, and the file is marked so

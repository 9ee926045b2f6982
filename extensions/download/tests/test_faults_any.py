"""Any mixture of faults over any number of sources: the right file comes out, or an error with a name; nothing
unverified ever stands among the complete files. `JAN_TEST_FAULTS=200` for a long run; each seed is a case of its own.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack, suppress

import anyio
import pytest

from jan_core import RpcError
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
from .house import House, Mirrors, OpenHouse, content, piece_list

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


async def meddle(house: House, job_id: str, chance: random.Random) -> None:
    """What a person may do meanwhile, for three seconds at most, or until the job has ended."""
    with anyio.move_on_after(3):
        for what in chance.choices(["pause", "configure", "nothing"], k=chance.randrange(3)):
            await house.until(job_id, "running", "completed", "failed")
            with suppress(RpcError):  # it may have ended, or end at this moment
                if what == "pause":
                    await house.call("pause", id=job_id)
                    await house.call("resume", id=job_id)
                elif what == "configure":
                    limit = chance.choice([0, 5_000_000])
                    await house.call("configure", id=job_id, priority=chance.randrange(9), limit=limit)
        await house.until(job_id, "completed", "failed")


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
        mirrors = Mirrors(*(DownloadSource(url, priority=number) for number, url in enumerate(urls[1:])))
        listed = known and chance.random() < 0.6
        pieces = piece_list(servers[0], data, length=chance.choice([1 << 16, 1 << 18, 1 << 20])) if listed else None
        settings = {"stall_timeout": 0.3, "max_connections": chance.choice([1, 3, 8])}
        async with open_house(mirrors, **settings) as house:
            job_id = (await house.start(urls[0], data if known else None, pieces=pieces))["id"]
            await meddle(house, job_id, chance)
        async with open_house(mirrors, **settings) as house:  # and whatever it was doing, it is taken up
            await meddle(house, job_id, chance)
            job = await house.call("get", id=job_id)
            if job["state"] == "failed":
                assert job["error"]["type"] in TYPED, job["error"]
            for server in servers:  # every trouble ends; what was right so far must be of use then
                server.faults("/f")
                server.release()
            while job["state"] != "completed":
                if job["state"] in ("failed", "waiting", "paused"):
                    with suppress(RpcError):  # it may go on by itself at this moment
                        await house.call("resume", id=job_id)
                job = await house.until(job_id, "completed", "failed")
            assert job["verified"] is known
            assert content(job) == data or not known  # nobody can tell then, and the file is marked so

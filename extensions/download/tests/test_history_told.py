"""`downloads.history` of downloads that really went wrong: what is told is what happened."""

from __future__ import annotations

from jan_core.types import DownloadSource

from .faults import Flip, Hold
from .faultserver import FaultServer
from .house import PIECE, Mirrors, OpenHouse, happens, piece_list


async def test_a_source_that_sent_a_wrong_piece_is_named_and_the_piece_is_marked(
    open_house: OpenHouse, server: FaultServer, serve_more: type[FaultServer], data: bytes
) -> None:
    url = server.serve("/f", data, Flip(PIECE + 7)) + "?token=hunter2"
    mirror = serve_more()
    async with open_house(Mirrors(DownloadSource(mirror.serve("/f", data), priority=9)), max_connections=1) as house:
        job = await house.fetch(url, data, pieces=piece_list(mirror, data))
        told = await house.call("history", id=job["id"], html=True)
    marked = [run for run in told["pieces"] if run["tries"]]
    assert [(run["first"], run["count"]) for run in marked] == [(1, 1)]
    assert marked[0]["source"].endswith(f":{mirror.port}"), "whoever mended it"
    assert sum(run["count"] for run in told["pieces"]) == -(-len(data) // PIECE)
    blamed = [entry["data"] for entry in told["entries"] if entry["data"].get("state") == "quarantined"]
    assert [data["id"].endswith(f":{server.port}") for data in blamed] == [True]
    states = [entry["data"]["state"] for entry in told["entries"] if entry["kind"] == "state"]
    assert states == ["queued", "running", "verifying", "completed"]
    assert "was wrong and fetched again <b>1</b>" in told["html"]
    assert f"{-(-len(data) // PIECE)} pieces of 131.1 kB" in told["html"]
    assert "it sent wrong bytes" in told["html"]
    assert "hunter2" not in told["html"]


async def test_what_one_process_saw_is_there_for_the_next(
    open_house: OpenHouse, server: FaultServer, data: bytes
) -> None:
    url = server.serve("/f", data, Hold(after=3 * PIECE))
    async with open_house() as house:
        job = await house.start(url, data, pieces=piece_list(server, data))
        await happens(server.wait_held)
        await house.one("pause", job["id"])
    async with open_house() as house:
        told = await house.call("history", id=job["id"], html=True)
    states = [entry["data"]["state"] for entry in told["entries"] if entry["kind"] == "state"]
    assert states == ["queued", "running", "paused"]
    assert "paused at" in told["html"]

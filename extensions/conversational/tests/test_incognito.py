"""Incognito threads: the same methods, and not a byte of them on the disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jan_core import RpcError

from .conftest import House, OpenHouse, WorkerDied

pytestmark = pytest.mark.anyio

SECRET = "xylophone-in-the-attic"


def bytes_below(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


async def test_nothing_of_an_incognito_thread_reaches_the_disk_or_the_log(
    open_house: OpenHouse, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "SQLITE_TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    async with open_house() as house:
        id = await house.thread(incognito=True, title=SECRET, metadata={"k": SECRET})
        for _ in range(3):
            await house.call("messages.create", {"thread_id": id, "content": SECRET * 50_000})
            await house.call("threads.run", {"thread_id": id, "content": SECRET + " word" * 10})
        house.engine.pause_after, house.engine.fail_with = 1, WorkerDied("gone")
        with pytest.raises(RpcError):
            await house.call("threads.run", {"thread_id": id, "content": SECRET + " two"})
        open_on_disk = await house.thread()
        await house.call("messages.create", {"thread_id": open_on_disk, "content": "in the open"})
        assert len(await house.messages(id)) == 11
        while_open = list(bytes_below(tmp_path))
    for data in [*while_open, *bytes_below(tmp_path), caplog.text.encode()]:
        assert SECRET.encode() not in data
        assert id.encode() not in data
    assert any(b"in the open" in data for data in while_open)  # the look at the disk does find what is there


async def test_an_incognito_turn_is_shown_to_no_listener_and_stays_on_this_machine(house: House) -> None:
    id = await house.thread(incognito=True)
    await house.call("threads.run", {"thread_id": id, "content": "hush"})
    await house.call("messages.create", {"thread_id": id, "content": "hush"})
    request = house.engine.requests[0]
    assert (request.sensitivity, request.thread_id) == ("sensitive", None)
    shared = await house.thread(incognito=True, sensitivity="normal")
    await house.call("threads.run", {"thread_id": shared, "content": "kept nowhere, but no secret"})
    assert house.engine.requests.pop().sensitivity == "normal"
    other = await house.thread()
    await house.call("threads.run", {"thread_id": other, "content": "aloud"})
    assert house.engine.requests[1].sensitivity == "normal"
    assert "hush" not in [m.content for m in house.engine.added]


async def test_incognito_threads_are_listed_apart_and_end_with_the_host(open_house: OpenHouse) -> None:
    async with open_house() as house:
        hidden, plain = await house.thread(incognito=True), await house.thread()
        assert (await house.call("threads.get", {"thread_id": hidden}))["incognito"] is True
        for incognito, expected in [(True, [hidden]), (False, [plain])]:
            page = await house.call("threads.list", {"incognito": incognito})
            assert [t["id"] for t in page["threads"]] == expected
    async with open_house() as house:
        assert (await house.call("threads.list", {"incognito": True}))["threads"] == []
        with pytest.raises(RpcError, match="end with the application"):
            await house.call("threads.get", {"thread_id": hidden})

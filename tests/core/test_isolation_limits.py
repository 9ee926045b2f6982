"""What is too large, too much or spoilt costs the call it belongs to, or the process, and no other call an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError
from jan_core.isolation.link import RESERVED
from jan_core.isolation.process import Child, ChildFailed
from jan_core.loader import folder_source
from jan_core.rpc.direct import DirectClient
from jan_core.rpc.framing import MAX_MESSAGE
from jan_core.rpc.peer import MAX_IN_FLIGHT

from .isolation import PROJECT


@pytest.fixture
async def client(open_host: Any) -> AsyncIterator[DirectClient]:
    async with open_host(sources=[folder_source(PROJECT)]) as opened:
        yield opened.client("somebody")


@pytest.mark.parametrize("size", [MAX_MESSAGE - 60, MAX_MESSAGE + (1 << 20)])
@pytest.mark.parametrize(
    ("name", "type"), [("rude.size", "invalid_request"), ("rude.large", "internal_error"), ("rude.ask_large", "")]
)
async def test_a_message_that_is_too_large_costs_its_own_call_alone(
    client: DirectClient, name: str, type: str, size: int
) -> None:
    before = await client.call("rude.pid")
    with anyio.fail_after(20):
        if name == "rude.ask_large":
            assert await client.call(name, {"value": size}) == "RpcError invalid_request"
        else:
            with pytest.raises(RpcError) as caught:
                await client.call(name, {"text": "x" * size} if name == "rude.size" else {"value": size})
            assert caught.value.type == type
        assert await client.call("rude.pid") == before


async def test_an_event_that_is_too_large_is_left_out(client: DirectClient) -> None:
    before = await client.call("rude.pid")
    with anyio.fail_after(20):
        await client.call("rude.emit_large", {"value": MAX_MESSAGE + 1})
        assert await client.call("rude.pid") == before


async def test_with_as_many_calls_inside_as_may_be_it_still_hears_of_its_settings_and_its_end(
    client: DirectClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def inside() -> str:
        try:
            await client.call("rude.notice", {"text": "enough"})
        except RpcError as error:
            return error.type
        return "answered"

    with anyio.fail_after(30):
        calls = [asyncio.create_task(inside()) for _ in range(MAX_IN_FLIGHT)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # the first that finds no room
        for note in ("a", "b", "c", "d", "e", "f", "enough"):  # each is an event that it cannot be asked to hear, too
            await client.call("settings.set", {"extension": "test", "values": {"note": note}})
        answers = await asyncio.gather(*calls)
        (row,) = (await client.call("extensions.list"))["extensions"]
    assert set(answers) == {"answered", "overloaded"}
    assert answers.count("overloaded") < 2 * RESERVED
    assert (row["state"], row.get("failure")) == ("active", None)
    caplog.clear()
    await client.call("extensions.disable", {"id": "test"})
    assert "deactivated" in caplog.text


@pytest.mark.parametrize("how", ["task", "callback", "stop"])
async def test_an_event_loop_that_is_ended_ends_the_process_whatever_threads_stay(
    client: DirectClient, how: str
) -> None:
    waiting = asyncio.create_task(client.call("test.wait"))
    await client.call("test.until", {"text": "running"})
    before = await client.call("rude.pid")
    with anyio.fail_after(5):
        for call in (client.call("rude.leave_loop", {"text": how}), waiting):
            with pytest.raises(RpcError) as caught:
                await call
            assert caught.value.type == "extension_crashed"
            assert "ended with status 1" in caught.value.message
        assert await client.call("rude.pid") != before


async def test_a_process_that_is_out_of_memory_is_ended_before_it_loses_a_message(client: DirectClient) -> None:
    with anyio.fail_after(5), pytest.raises(RpcError) as caught:
        await client.call("rude.exhaust")
    assert "ended with status 1" in caught.value.message


async def test_a_spoilt_channel_ends_one_that_cannot_print(client: DirectClient) -> None:
    before = await client.call("rude.pid")
    with anyio.fail_after(10):
        with pytest.raises(RpcError) as caught:
            await client.call("rude.shut")
        assert caught.value.type == "extension_crashed"
        assert await client.call("rude.pid") != before


async def test_what_it_starts_can_be_interrupted(client: DirectClient) -> None:
    assert await client.call("rude.interrupt") != 0


def test_a_process_for_which_there_are_no_descriptors_leaves_none_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(2))
        for room in range(8):
            for descriptor in taken[-room:] if room else []:
                os.close(descriptor)
            with pytest.raises((ChildFailed, OSError)):
                Child("test")
            for place in range(len(taken) - room, len(taken)):
                taken[place] = os.dup(2)  # there is as much room as before
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count() == before

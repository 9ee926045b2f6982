"""The example extension, in a host of its own. The fixtures come with jan-core."""

import logging
from typing import Any

import anyio
import pytest

from jan_core import Caller, RpcError
from jan_core.testing import assert_extension_conforms


async def test_it_greets_by_name_and_counts(caller: Caller) -> None:
    assert await caller.call("hello.greet", {"name": "Ada"}) == {"text": "Hello, Ada!", "count": 1}
    assert (await caller.call("hello.greet"))["count"] == 2


async def test_a_changed_setting_is_used_at_once(caller: Caller) -> None:
    await caller.call("settings.set", {"extension": "hello", "values": {"greeting": "Hi"}})
    assert (await caller.call("hello.greet"))["text"] == "Hi, world!"


async def test_it_spells_a_name_as_a_stream(caller: Caller) -> None:
    async with caller.stream("hello.spell", {"name": "Ada"}, item=str) as stream:
        assert [letter async for letter in stream] == ["A", "d", "a"]


async def test_nobody_to_greet_is_an_error_a_caller_can_act_on(caller: Caller) -> None:
    with pytest.raises(RpcError) as caught:
        await caller.call("hello.greet", {"name": " "})
    assert caught.value.type == "nobody_there"


async def test_it_asks_others_where_it_is(caller: Caller) -> None:
    assert "as process" in (await caller.call("hello.place"))["text"]


async def test_everybody_hears_of_a_greeting(host: Any, caller: Caller) -> None:
    heard: list[Any] = []
    with host.bus.subscribe(heard.append):
        await caller.call("hello.greet", {"name": "Ada"})
    assert [(event.name, event.data) for event in heard] == [("hello.greeted", {"name": "Ada"})]


async def test_guests_are_written_down(host: Any, caller: Caller) -> None:
    await caller.call("hello.greet", {"name": "Ada"})
    book = host.data_dir / "hello" / "guests.txt"
    with anyio.fail_after(5):
        while book.read_text("utf-8") != "Ada\n":
            await anyio.lowlevel.checkpoint()


async def test_it_hears_of_its_settings(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await caller.call("settings.set", {"extension": "hello", "values": {"greeting": "Hi"}})
    with anyio.fail_after(5):
        while "the greeting is now 'Hi'" not in caplog.text:
            await anyio.lowlevel.checkpoint()


async def test_the_count_survives_a_reload(caller: Caller) -> None:
    await caller.call("hello.greet")
    await caller.call("extensions.reload", {"id": "hello", "force": True})
    assert (await caller.call("hello.greet"))["count"] == 2


async def test_it_is_what_a_host_expects(extension: object) -> None:
    await assert_extension_conforms(extension)

"""The example extension, through a host of its own."""

from typing import Any

import pytest
from jan_hello.plugin import HelloExtension

from jan_core import RpcError


async def test_it_greets_by_name(open_host: Any) -> None:
    async with open_host(HelloExtension(), id="hello", methods=["hello."]) as host:
        client = host.client()
        assert await client.call("hello.greet", {"name": "Ada"}) == {"text": "Hello, Ada!", "count": 1}
        await client.call("settings.set", {"extension": "hello", "values": {"greeting": "Hi"}})
        assert (await client.call("hello.greet"))["text"] == "Hi, world!"


async def test_it_spells_a_name_as_a_stream(open_host: Any) -> None:
    async with open_host(HelloExtension(), id="hello", methods=["hello."]) as host:
        async with host.client().stream("hello.spell", {"name": "Ada"}) as stream:
            assert [letter async for letter in stream] == ["A", "d", "a"]


async def test_an_empty_name_is_a_typed_error(open_host: Any) -> None:
    async with open_host(HelloExtension(), id="hello", methods=["hello."]) as host:
        with pytest.raises(RpcError) as caught:
            await host.client().call("hello.greet", {"name": " "})
    assert caught.value.type == "nobody_there"

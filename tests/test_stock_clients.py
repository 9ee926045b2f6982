"""Clients made for other servers drive `jan-sidecar` unchanged: pygls (Content-Length), the MCP SDK (lines)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.message import SessionMessage
from pygls.client import JsonRPCClient
from pygls.exceptions import JsonRpcException, JsonRpcMethodNotFound

BIN = Path(sys.executable).parent
HELLO = Path(__file__).parents[1] / "examples" / "hello"
INITIALIZE = {"protocolVersion": "1.0", "clientInfo": {"name": "stock", "version": "1"}}


def arguments(data_dir: Path) -> list[str]:
    return ["--data-dir", str(data_dir), "--dev", str(HELLO)]


# -- pygls: headers ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def pygls(data_dir: Path) -> AsyncIterator[JsonRPCClient]:
    client = JsonRPCClient()
    with anyio.fail_after(20):
        await client.start_io(str(BIN / "jan-sidecar"), *arguments(data_dir))
        await client.protocol.send_request_async("initialize", INITIALIZE)
    yield client
    with anyio.fail_after(10):
        await client.protocol.send_request_async("shutdown", {})
        client.protocol.notify("exit", {})
        assert client._server is not None
        assert await client._server.wait() == 0
        await client.stop()


async def test_pygls_calls_methods_and_hears_notifications(pygls: JsonRPCClient) -> None:
    items: list[Any] = []

    @pygls.feature("$/stream")
    def heard(params: Any) -> None:
        items.append(params.delta)

    with anyio.fail_after(20):
        greeting = await pygls.protocol.send_request_async("hello.greet", {"name": "Ada"})
        assert "Ada" in greeting.text
        spelled = await pygls.protocol.send_request_async("hello.spell", {"name": "Ada"})
    assert spelled.text == "Ada"
    assert items == ["A", "d", "a"]


async def test_pygls_gets_errors_as_its_own_exceptions(pygls: JsonRPCClient) -> None:
    with anyio.fail_after(20):
        with pytest.raises(JsonRpcMethodNotFound):
            await pygls.protocol.send_request_async("no.such", {})
        with pytest.raises(JsonRpcException) as caught:
            await pygls.protocol.send_request_async("hello.greet", {"name": 7})
    assert caught.value.code == -32602
    assert caught.value.data["path"] == "$.name"


async def test_pygls_asks_much_at_once(pygls: JsonRPCClient) -> None:
    with anyio.fail_after(30):
        answers = await asyncio.gather(
            *(pygls.protocol.send_request_async("hello.greet", {"name": f"n{n}"}) for n in range(200))
        )
    assert [f"n{n}" in answer.text for n, answer in enumerate(answers)] == [True] * 200


# -- the MCP SDK's transport: lines -----------------------------------------------------------------------------------


async def test_the_transport_of_the_mcp_sdk_carries_a_session(data_dir: Path) -> None:
    server = StdioServerParameters(command=str(BIN / "jan-sidecar"), args=arguments(data_dir))
    with anyio.fail_after(30):
        async with stdio_client(server) as (incoming, outgoing):

            async def ask(id: int, method: str, params: dict[str, Any]) -> Any:
                request = mcp_types.JSONRPCRequest(jsonrpc="2.0", id=id, method=method, params=params)
                await outgoing.send(SessionMessage(request))
                async for message in incoming:
                    assert isinstance(message, SessionMessage), message
                    if getattr(message.message, "id", None) == id:
                        return message.message
                    heard.append(message.message)
                raise AssertionError("the stream ended")

            heard: list[Any] = []
            hello = await ask(1, "initialize", INITIALIZE)
            assert hello.result["protocolVersion"] == "1.0"
            spelled = await ask(2, "hello.spell", {"name": "Ada"})
            assert spelled.result["text"] == "Ada"
            items = [m.params["delta"] for m in heard if m.method == "$/stream"]
            assert items == ["A", "d", "a"]
            refused = await ask(3, "hello.greet", {"name": 7})
            assert (refused.error.code, refused.error.data["path"]) == (-32602, "$.name")
            await outgoing.send(
                SessionMessage(mcp_types.JSONRPCNotification(jsonrpc="2.0", method="initialized", params={}))
            )
            assert (await ask(4, "ping", {})).result == {}

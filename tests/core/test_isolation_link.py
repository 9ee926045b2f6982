"""Whatever a child writes to its channel, the host's end of it answers everybody, ends once, and says why."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jan_core import JanError, RpcError
from jan_core.isolation.link import RESERVED, Link
from jan_core.isolation.windows import WINDOW
from jan_core.rpc.peer import MAX_IN_FLIGHT

VALID = [
    b'{"jsonrpc":"2.0","id":1,"result":{"a":[1,2,null]}}',
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no","data":{"type":"x"}}}',
    b'{"jsonrpc":"2.0","method":"$/stream","params":{"id":1,"seq":0,"delta":"x"}}',
    b'{"jsonrpc":"2.0","method":"$/progress","params":{"token":1,"value":{"kind":"report","done":1}}}',
    b'{"jsonrpc":"2.0","method":"$/event","params":{"name":"a.b","data":1}}',
]


class Gone(JanError):
    code, type = -32099, "gone"


class Ends:
    """Both ends of a link: `link` is the host's, `theirs` the child's."""

    def __init__(self, **options: Any) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.reasons: list[str] = []
        self.ended = asyncio.Event()
        self.heard: list[str] = []
        self.link = Link(self.ours.fileno(), lambda name, params: self.heard.append(name), self._over, **options)

    def _over(self, why: str) -> None:
        self.reasons.append(why)
        self.ended.set()

    def close(self) -> None:
        self.link.end("")
        self.ours.close()
        self.theirs.close()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.close()


@given(
    st.lists(
        st.one_of(
            st.sampled_from(VALID),
            st.binary(max_size=80),
            st.tuples(st.sampled_from(VALID), st.integers(0, 60), st.binary(max_size=3)).map(
                lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 1 :]
            ),
        ),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_everybody_is_answered_once_and_the_end_is_told_once(lines: list[bytes]) -> None:
    async def talk() -> None:
        ends = Ends()
        try:
            exchanges = [ends.link.ask("a.b", {}, items=bool(n % 2)) for n in range(3)]
            ends.theirs.sendall(b"\n".join(lines) + b"\n")
            ends.theirs.close()
            with anyio.fail_after(5):
                await ends.ended.wait()
                ends.link.fail(lambda: Gone("it is gone"))
                for exchange in exchanges:
                    try:
                        async for _ in exchange:
                            pass
                        await exchange.answer()
                    except (Gone, RpcError):
                        pass
                with pytest.raises(Gone):
                    await ends.link.ask("a.b", {}).answer()
            assert len(ends.reasons) == 1
        finally:
            ends.close()

    asyncio.run(talk())


async def test_more_of_a_stream_than_was_asked_for_ends_it(ends: Ends) -> None:
    ends.link.ask("a.b", {}, items=True)
    item = VALID[2] + b"\n"
    ends.theirs.sendall(item * (WINDOW + 2))
    with anyio.fail_after(5):
        await ends.ended.wait()
    assert ends.reasons == ["it sent more of a stream than was asked for"]


async def test_a_message_without_end_ends_it(ends: Ends) -> None:
    def flood() -> None:
        try:
            while True:
                ends.theirs.sendall(b"x" * (1 << 20))
        except OSError:
            pass  # closed below

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, flood)
            await ends.ended.wait()
            ends.ours.shutdown(socket.SHUT_RDWR)
    assert ends.reasons == ["it sent a message that is too large"]


async def test_more_requests_than_a_peer_takes_are_refused_here(ends: Ends) -> None:
    for _ in range(MAX_IN_FLIGHT - RESERVED):
        ends.link.ask("a.b", {})
    with pytest.raises(JanError) as caught:
        ends.link.ask("a.b", {})
    assert caught.value.type == "overloaded"
    for _ in range(RESERVED):
        ends.link.ask("a.b", {}, urgent=True)
    with pytest.raises(JanError):
        ends.link.ask("a.b", {}, urgent=True)


async def test_a_listener_that_raises_costs_no_message(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    def break_down(message: str, done: float | None, total: float | None) -> None:
        raise ZeroDivisionError("the listener")

    exchange = ends.link.ask("a.b", {}, progress=break_down)
    ends.theirs.sendall(VALID[3] + b"\n" + VALID[0] + b"\n")
    with anyio.fail_after(5):
        assert await exchange.answer() == {"a": [1, 2, None]}
    assert "the listener" in caplog.text


async def test_what_cannot_be_encoded_is_its_callers_own(ends: Ends) -> None:
    with pytest.raises((TypeError, msgspec.MsgspecError)):
        ends.link.ask("a.b", object())
    ends.theirs.sendall(VALID[4] + b"\n")
    with anyio.fail_after(5):
        while not ends.heard:
            await anyio.lowlevel.checkpoint()
    assert ends.reasons == []

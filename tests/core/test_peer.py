"""What only the wire shows: the handshake, JSON-RPC's own rules, limits, batches, framing, and a reader that stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jan_core import RpcError
from jan_core.host import Host
from jan_core.rpc.peer import MAX_IN_FLIGHT, Peer

from .conftest import Sample, Wire


class Recorder:
    """A transport that keeps what was written."""

    blocked = full = False

    def __init__(self) -> None:
        self.written = bytearray()
        self.wrote = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data
        self.wrote.set()

    async def drained(self) -> None:
        return

    def messages(self) -> list[Any]:
        return [json.loads(line) for line in bytes(self.written).splitlines()]


Exchange = Callable[..., Awaitable[list[Any]]]


@pytest.fixture(params=["in a callback", "in a task"])
async def exchange(host: Host, request: pytest.FixtureRequest) -> Exchange:
    """Feed bytes to a fresh, initialized peer and collect what it answers, in order.

    From a callback, as transports do, requests are started at once; from a task they cannot be.
    """

    async def feed(peer: Peer, data: bytes) -> None:
        if request.param == "in a task":
            peer.feed(data)
        else:
            asyncio.get_running_loop().call_soon(peer.feed, data)
            await asyncio.sleep(0)

    async def run(
        *lines: bytes | dict[str, Any] | list[Any],
        answers: int = 1,
        initialize: bool = True,
        then: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        recorder = Recorder()
        peer = Peer(host, recorder)
        if initialize:
            peer.feed(b'{"jsonrpc":"2.0","id":"init","method":"initialize"}\n')
            peer.flush()
            recorder.written.clear()
        data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        await feed(peer, data)
        then()
        with anyio.fail_after(5):
            peer.flush()
            while len(recorder.messages()) < answers:
                recorder.wrote.clear()
                await recorder.wrote.wait()
        await peer.aclose()
        return recorder.messages()

    return run


def request(id: Any, method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})}


def code(message: Any) -> int:
    return int(message["error"]["code"])


async def test_the_handshake_says_who_answers_and_what_is_there(wire: Wire) -> None:
    async with wire(initialize=False) as client:
        answer = await client.call(
            "initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "x", "version": "1"}}
        )
    assert set(answer) == {"protocolVersion", "serverInfo", "capabilities", "extensions", "schemaHash"}
    assert answer["serverInfo"]["pid"] > 0
    assert "test" in answer["capabilities"]["namespaces"]
    assert [(e["id"], e["state"], e["generation"]) for e in answer["extensions"]] == [("test", "active", 1)]


async def test_requests_before_initialize_are_refused_and_initialize_comes_once(exchange: Exchange) -> None:
    init = request(2, "initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "x", "version": "1"}})
    early, first, second = await exchange(request(1, "ping"), init, {**init, "id": 3}, answers=3, initialize=False)
    assert code(early) == -32002
    assert "result" in first
    assert code(second) == -32600


@pytest.mark.parametrize(
    ("line", "id", "expected"),
    [
        (b"{nonsense}\n", None, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":}}\n', None, -32700),
        # The envelope is sound, so its sender can be told which request it was.
        (b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":"\xff"}}\n', 1, -32700),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}\n', 1, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n', None, -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}\n', None, -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}\n', None, -32600),
        (b'{"jsonrpc":"2.0","id":7,"method":42}\n', 7, -32600),
        (b'{"jsonrpc":"2.0","id":8}\n', 8, -32600),
        (b'"just a string"\n', None, -32600),
        (b"[]\n", None, -32600),
        (b"[" * 100_000 + b"\n", None, -32600),
        (
            b'{"jsonrpc":"2.0","id":9,"method":"test.echo","params":{"text":' + b"[" * 200 + b"]" * 200 + b"}}\n",
            9,
            -32600,
        ),
    ],
)
async def test_what_is_no_request_is_answered_with_the_right_code_and_id(
    exchange: Exchange, line: bytes, id: Any, expected: int
) -> None:
    bad, good = await exchange(line, request("after", "ping"), answers=2)
    assert (bad["id"], code(bad)) == (id, expected)
    assert good == {"id": "after", "result": {}, "jsonrpc": "2.0"}


async def test_bad_notifications_are_never_answered(exchange: Exchange) -> None:
    lines = [
        b'{"jsonrpc":"2.0","method":"no.such"}\n',
        b'{"jsonrpc":"2.0","method":"test.double","params":{"value":"x"}}\n',
        b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"nope":1}}\n',
        b'{"jsonrpc":"2.0","id":5,"result":"to nothing we asked"}\n',
        b"\n  \n",
    ]
    assert [m["id"] for m in await exchange(*lines, request(1, "ping"))] == [1]


async def test_a_cancelled_request_is_answered_once_with_its_code(exchange: Exchange, sample: Sample) -> None:
    # Both in one read: the task has not begun when it is cancelled, and still owes its answer.
    both = json.dumps(request(1, "test.wait")).encode() + b"\n"
    both += b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}\n'
    (answer,) = await exchange(both)
    assert (answer["id"], code(answer)) == (1, -32800)


async def test_an_id_in_flight_is_refused_and_the_first_request_still_answered(
    exchange: Exchange, sample: Sample
) -> None:
    twice = request(1, "test.wait"), request(1, "test.wait")
    refused, answered = await exchange(*twice, answers=2, then=sample.release.set)
    assert code(refused) == -32600
    assert answered["result"] == "released"


async def test_requests_past_the_limit_in_flight_are_refused_as_retryable(exchange: Exchange) -> None:
    lines = b"".join(json.dumps(request(i, "test.wait")).encode() + b"\n" for i in range(MAX_IN_FLIGHT + 1))
    answers = await exchange(lines)
    assert answers[0]["id"] == MAX_IN_FLIGHT
    assert code(answers[0]) == -32001
    assert answers[0]["error"]["data"]["retryable"] is True
    assert len(answers) == MAX_IN_FLIGHT + 1, "the end of the conversation answers the others too"
    assert {code(a) for a in answers[1:]} == {-32800}


async def test_a_message_past_the_size_limit_is_skipped_and_the_stream_goes_on(exchange: Exchange) -> None:
    big = b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":"' + b"x" * (33 << 20) + b'"}}\n'
    too_big, good = await exchange(big, request(2, "ping"), answers=2)
    assert (too_big["id"], code(too_big)) == (None, -32600)
    assert good["id"] == 2


async def test_a_batch_is_answered_by_one_array_without_its_notifications(exchange: Exchange) -> None:
    batch = [
        request(1, "test.double", {"value": 1}),
        {"jsonrpc": "2.0", "method": "test.emit", "params": {"text": "x"}},
        request(2, "test.echo", {"text": "b"}),
        42,
        request(3, "no.such"),
    ]
    messages = [m for m in await exchange(batch, answers=2) if isinstance(m, list)]
    assert len(messages) == 1
    by_id = {m["id"]: m for m in messages[0]}
    assert by_id[1]["result"] == {"value": 2}
    assert by_id[2]["result"] == {"text": "b"}
    assert code(by_id[3]) == -32601
    assert code(by_id[None]) == -32600
    assert len(messages[0]) == 4


async def test_content_length_framing_is_recognised_and_answered_in_kind(host: Host) -> None:
    recorder = Recorder()
    peer = Peer(host, recorder)
    body = json.dumps(request(1, "initialize")).encode()
    framed = b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n%b" % (len(body), body)
    for byte in framed:  # however it is cut
        peer.feed(bytes([byte]))
    peer.flush()
    head, _, answer = bytes(recorder.written).partition(b"\r\n\r\n")
    assert head == b"Content-Length: %d" % len(answer)
    assert json.loads(answer)["id"] == 1
    await peer.aclose()


async def test_a_progress_token_is_not_a_param_and_progress_ends(exchange: Exchange) -> None:
    messages = await exchange(request(1, "test.work", {"value": 2, "progressToken": "t"}), answers=4)
    assert [m["params"]["value"]["kind"] for m in messages[:-1]] == ["begin", "report", "end"]
    assert {m["params"]["token"] for m in messages[:-1]} == {"t"}
    assert messages[-1]["result"] == "done"


async def test_a_second_shutdown_is_refused_and_the_first_does_not_wait_for_it(
    exchange: Exchange, sample: Sample
) -> None:
    answers = await exchange(request(1, "shutdown"), request(2, "shutdown"), answers=2)
    by_id = {a["id"]: a for a in answers}
    assert by_id[1]["result"] is None
    assert code(by_id[2]) == -32003


async def test_shutdown_answers_after_running_work_and_refuses_new(exchange: Exchange, sample: Sample) -> None:
    async def release() -> None:
        await sample.running.wait()
        sample.release.set()

    async with anyio.create_task_group() as group:
        group.start_soon(release)
        refused, worked, done = await exchange(
            request(1, "test.wait"), request(2, "shutdown"), request(3, "ping"), answers=3
        )
    assert (refused["id"], code(refused)) == (3, -32003)
    assert (worked["id"], worked["result"]) == (1, "released")
    assert (done["id"], done["result"]) == (2, None)


class Reluctant(Recorder):
    """A transport whose reader stops after some bytes, until `read_on`."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes
        self.waited = asyncio.Event()
        self.reading = asyncio.Event()

    @property
    def blocked(self) -> bool:  # type: ignore[override]
        return len(self.written) > self.takes and not self.reading.is_set()

    async def drained(self) -> None:
        self.waited.set()
        await self.reading.wait()


@pytest.mark.parametrize("method", ["test.count", "test.drip"])
async def test_a_client_that_stops_reading_stalls_its_stream_and_not_memory(
    host: Host, sample: Sample, method: str
) -> None:
    transport = Reluctant(takes=100_000)
    peer = Peer(host, transport)
    peer.feed(b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n')
    peer.feed(json.dumps(request(1, method, {"value": 3_000})).encode() + b"\n")
    with anyio.fail_after(10):
        await transport.waited.wait()
        assert 0 < sample.sent < 3_000
        assert len(transport.written) < 200_000
        peer.feed(b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')  # others are still answered
        peer.flush()
        assert b'{"id":2,"result":{}' in transport.written
        transport.reading.set()
        while b'"id":1,"result"' not in transport.written:
            transport.wrote.clear()
            await transport.wrote.wait()
    assert sample.sent == 3_000
    await peer.aclose()


async def test_a_real_pipe_that_is_not_read_blocks_and_recovers(wire: Wire, sample: Sample) -> None:
    async with wire() as client:
        transport: Any = client.transport  # type: ignore[attr-defined]
        transport.pause_reading()
        client.send_raw(msgspec.json.encode(request(77, "test.drip", {"value": 50_000})))
        client.send_raw(msgspec.json.encode(request(78, "test.wait")))
        with anyio.fail_after(20):
            await sample.running.wait()
            transport.resume_reading()
            client.notify("$/cancelRequest", {"id": 77})
            assert await client.call("test.double", {"value": 2}) == {"value": 4}
        assert sample.sent < 50_000


async def test_bad_bytes_in_a_notification_cost_nothing_behind_it(exchange: Exchange) -> None:
    chunk = b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":"\xff"}}\n'
    chunk += json.dumps(request(1, "ping")).encode() + b"\n"
    (answer,) = await exchange(chunk)
    assert answer["id"] == 1


async def test_a_batch_past_the_limit_is_refused_as_one(exchange: Exchange) -> None:
    (answer,) = await exchange(b"[" + b",".join([b"1"] * (MAX_IN_FLIGHT + 1)) + b"]\n")
    assert code(answer) == -32600


async def test_initialize_and_shutdown_are_requests_only(exchange: Exchange) -> None:
    lines = [{"jsonrpc": "2.0", "method": name} for name in ("initialize", "shutdown")]
    events = await exchange(*lines, request(1, "test.emit", {"text": "x"}), request(2, "ping"), answers=3)
    assert [m.get("method") for m in events].count("test.happened") == 1
    assert events[-1]["result"] == {}


async def test_nothing_of_a_request_follows_its_answer(exchange: Exchange, sample: Sample) -> None:
    messages = await exchange(request(1, "test.keep", {"progressToken": 1}), answers=1)
    await sample.kept.send(1)
    sample.kept.progress("late")
    assert [m["id"] for m in messages] == [1]


async def test_notifications_hold_a_lease_and_end_with_the_conversation(host: Host, sample: Sample) -> None:
    peer = Peer(host, Recorder())
    peer.feed(b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n{"jsonrpc":"2.0","method":"test.wait"}\n')
    generation = host.lifecycle.extensions["test"].current
    assert generation is not None
    assert len(generation.leases) == 1
    await sample.running.wait()
    await peer.aclose()
    assert sample.cancelled.is_set()
    assert not generation.leases


async def test_end_of_input_cancels_what_runs_and_ends_the_conversation(wire: Wire, sample: Sample) -> None:
    async with wire() as client:
        async with anyio.create_task_group() as group:

            async def lost() -> None:
                with pytest.raises((RpcError, ConnectionError)):
                    await client.call("test.wait")

            group.start_soon(lost)
            await sample.running.wait()
            client._writer.close()
            with anyio.fail_after(5):
                await sample.cancelled.wait()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    noise=st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"[", b'{"jsonrpc":"2.0","id":1', b'"}', b"\x00"]))
)
def test_no_bytes_end_the_conversation_or_go_unanswered_for_ever(noise: list[bytes]) -> None:
    async def run() -> None:
        import tempfile
        from pathlib import Path

        from jan_core.host import Host

        with tempfile.TemporaryDirectory() as folder:
            async with Host(Path(folder), sources=[]) as host:
                recorder = Recorder()
                peer = Peer(host, recorder)
                # The first byte decides the framing; noise after it must not matter.
                peer.feed(b'{"jsonrpc":"2.0","id":"init","method":"initialize"}\n')
                for part in noise:
                    peer.feed(part)
                peer.feed(b'\n{"jsonrpc":"2.0","id":"last","method":"ping"}\n')
                peer.flush()
                assert recorder.messages()[-1] == {"id": "last", "result": {}, "jsonrpc": "2.0"}
                await peer.aclose()

    anyio.run(run)

"""Requests on their way through a peer: the short way and the slow one agree, and each request ends with one answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import msgspec
import pytest

from jan_core import Call, Empty, JanError, hookimpl, method, methods_of
from jan_core.extension import Lease
from jan_core.host import Host
from jan_core.rpc import batches, requests
from jan_core.rpc.framing import MAX_MESSAGE
from jan_core.rpc.peer import MAX_IN_FLIGHT, Peer
from jan_core.rpc.start import starter


class Anything(msgspec.Struct):
    """Params that refuse no member."""

    value: Any = None


class Tame(msgspec.Struct):
    """Params that cannot nest."""

    value: int = 0


class Panic(BaseException):
    """What extension modules written in Rust raise where they have a defect (pyo3's PanicException)."""


ENDS: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("at src/lib.rs"),
    "an exit": lambda: SystemExit(3),
    "a stop": StopIteration,
    "a cancellation": asyncio.CancelledError,
    "a text that is no Unicode": lambda: JanError("no file caf\udce9"),
    "data that are none": lambda: JanError("no", thing=object()),
    "an integer too long": lambda: JanError("no", thing={(1, 2): 1 << 80}),
    "an error without its parts": lambda: JanError.__new__(JanError),
}


class Ways:
    """A method for each way a handler can take."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.seen: list[Any] = []
        self.table: Any = None

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("test.plain")
    def plain(self, params: Anything) -> Any:
        """The value again."""
        return params.value

    @method("test.tame")
    def tame(self, params: Tame) -> int:
        """The value again; decoded with many others."""
        return params.value

    @method("test.leave")
    def leave(self, params: Empty) -> None:
        """Take these methods out of the table."""
        self.table.replace("test", [])

    @method("test.at_once")
    async def at_once(self, params: Anything, call: Call) -> Any:
        """The value again, without having waited."""
        call.progress("half", done=1, total=2)
        return params.value

    @method("test.wait")
    async def wait(self, params: Anything) -> Any:
        """The value again, when it is time."""
        self.seen.append(params.value)
        await self.release.wait()
        return params.value

    @method("test.slow", deadline=0.02)
    async def slow(self, params: Anything) -> Any:
        """Too slow for its deadline."""
        await self.release.wait()
        return params.value

    @method("test.stubborn")
    async def stubborn(self, params: Anything) -> Any:
        """Does not mind being cancelled."""
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.seen.append("cancelled")
        return params.value

    @method("test.fail")
    def fail(self, params: Empty) -> Any:
        """A defect."""
        raise ZeroDivisionError

    @method("test.end")
    def end(self, params: Anything) -> Any:
        """End in one of many ways."""
        raise ENDS[params.value]()

    @method("test.end_later")
    async def end_later(self, params: Anything) -> Any:
        """End in one of many ways, after others had their turn."""
        await asyncio.sleep(0)
        raise ENDS[params.value]()


class Transport:
    """Keeps what was written; full when it is told so."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.paused = False
        self._free = asyncio.Event()
        self._free.set()
        self.wrote = asyncio.Event()

    @property
    def blocked(self) -> bool:
        return not self._free.is_set()

    full = blocked

    def write(self, data: bytes) -> None:
        self.written += [json.loads(line) for line in data.splitlines()]
        self.wrote.set()

    async def drained(self) -> None:
        await self._free.wait()

    def fill(self) -> None:
        self._free.clear()

    def free(self) -> None:
        self._free.set()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Conversation:
    """A peer that is spoken to as a transport does it: from a callback of the event loop."""

    def __init__(self, host: Host, ways: Ways) -> None:
        self.host, self.ways, self.transport = host, ways, Transport()
        self.peer = Peer(host, self.transport)

    async def say(self, *messages: Any) -> None:
        data = b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)
        asyncio.get_running_loop().call_soon(self.peer.feed, data)
        await asyncio.sleep(0)

    async def answers(self, count: int) -> list[Any]:
        """The next answers, what else comes left out."""
        got: list[Any] = []
        with anyio.fail_after(5):
            while True:
                while self.transport.written and len(got) < count:
                    message = self.transport.written.pop(0)
                    if "method" not in message:
                        got.append(message)
                if len(got) == count:
                    return got
                self.transport.wrote.clear()
                await self.transport.wrote.wait()

    def silent(self) -> bool:
        self.peer.flush()
        return not self.transport.written


@pytest.fixture
async def it(open_host: Any) -> AsyncIterator[Conversation]:
    ways = Ways()
    async with open_host(ways) as host:
        conversation = Conversation(host, ways)
        await conversation.say(request(0, "initialize", {}))
        await conversation.answers(1)
        yield conversation
        await conversation.peer.aclose()


def request(id: Any, method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})}


def cancel(id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id}}


def code(answer: Any) -> int:
    return int(answer["error"]["code"])


# -- two ways, one answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("test.plain", {"value": [1, "x", None]}),
        ("test.plain", {"value": 1, "unknown": 2}),
        ("test.plain", {"value": 1, "progressToken": 2}),
        ("test.plain", {}),
        ("test.plain", [1]),
        ("test.plain", "x"),
        ("test.at_once", {"value": {"a": 1}}),
        ("test.at_once", {"value": 1, "progressToken": "t"}),
        ("test.at_once", {"value": {"progressToken": 1}}),
        ("test.slow", {}),
        ("test.fail", {}),
        ("test.fail", {"unknown": 1}),
        ("test.no", {}),
        ("initialize", {}),
    ],
)
async def test_a_request_is_answered_alike_whichever_way_it_goes(it: Conversation, method: str, params: Any) -> None:
    def told() -> list[Any]:
        messages = [m for m in it.transport.written if "method" in m]
        return [m["params"]["value"] for m in messages]

    def plain(answer: Any) -> Any:
        if "error" in answer and answer["error"]["code"] == -32603:
            answer["error"] = -32603  # each has an id of its own
        return answer

    message = json.dumps(request(1, method, params)).encode()
    ways = []
    # A line, which is decoded with others; after a blank one, by itself.
    for data in (message + b"\n", b"\n" + message + b"\n"):
        await it.say(data)
        with anyio.fail_after(5):
            while not any("id" in m for m in it.transport.written):
                it.transport.wrote.clear()
                await it.transport.wrote.wait()
        ways.append((told(), plain(it.transport.written[-1])))
        it.transport.written.clear()
    first, second = ways
    assert first == second
    await it.say([request(1, method, params)])  # members of a batch are looked at one by one
    with anyio.fail_after(5):
        while not any(isinstance(m, list) for m in it.transport.written):
            it.transport.wrote.clear()
            await it.transport.wrote.wait()
    [answer] = it.transport.written.pop()
    assert (told(), plain(answer)) == first


async def test_an_id_in_flight_is_refused_on_both_ways(it: Conversation) -> None:
    await it.say(request(1, "test.wait", {"value": "first"}))
    await it.say(request(1, "test.wait", {"value": "second"}), request(1, "test.wait"), request(1, "test.plain", {}))
    assert [code(a) for a in await it.answers(3)] == [-32600] * 3
    it.ways.release.set()
    assert (await it.answers(1))[0]["result"] == "first"
    assert it.ways.seen == ["first"]
    await it.say(request(1, "test.plain", {"value": "again"}))
    assert (await it.answers(1))[0]["result"] == "again"


async def test_past_the_limit_in_flight_requests_are_refused_on_both_ways(it: Conversation) -> None:
    await it.say(*(request(n, "test.wait", {"value": n}) for n in range(MAX_IN_FLIGHT)))
    await it.say(request("a", "test.wait", {}), request("b", "test.plain", {}), request("c", "test.plain"))
    refused = await it.answers(3)
    assert [(a["id"], code(a), a["error"]["data"]["retryable"]) for a in refused] == [
        (id, -32001, True) for id in ("a", "b", "c")
    ]
    it.ways.release.set()
    assert sorted(a["id"] for a in await it.answers(MAX_IN_FLIGHT)) == list(range(MAX_IN_FLIGHT))


@pytest.mark.parametrize("depth", [125, 126, 127, 500])
async def test_nesting_is_bounded_also_where_types_would_take_more(it: Conversation, depth: int) -> None:
    # The message and its params are two levels.
    value = b"[" * depth + b"]" * depth
    await it.say(b'{"jsonrpc":"2.0","id":1,"method":"test.plain","params":{"value":%b}}\n' % value)
    (answer,) = await it.answers(1)
    assert ("result" in answer) is (depth + 2 <= 128)
    assert "result" in answer or code(answer) == -32600


async def test_many_lines_at_once_are_answered_as_each_by_itself(it: Conversation) -> None:
    usual = [request(n, "test.tame", {"value": n}) for n in range(50)]
    strange = [
        request("a", "test.plain", {"value": 1}),
        request("b", "test.tame", {"value": "x"}),
        request("c", "test.no", {}),
    ]
    together = [*usual[:20], strange[0], *usual[20:30], strange[1], *usual[30:], strange[2]]
    alone = []
    for message in together:
        await it.say(message)
        alone += await it.answers(1)
    await it.say(*together)
    assert sorted(await it.answers(len(together)), key=str) == sorted(alone, key=str)
    await it.say(*usual, {"jsonrpc": "2.0", "method": "exit"})
    await it.answers(50)
    assert it.peer.closed.is_set()


async def test_json_over_several_lines_is_none_however_it_arrives(it: Conversation) -> None:
    text = json.dumps(request(1, "test.tame", {"value": 1}), indent=0).encode() + b"\n"
    await it.say(text)
    count = len(await it.answers(text.count(b"\n")))
    for byte in text:
        await it.say(bytes([byte]))
    assert {code(a) for a in await it.answers(count)} <= {-32700, -32600}


async def test_a_table_that_changes_between_two_lines_holds_for_the_second(it: Conversation) -> None:
    it.ways.table = it.host.table
    await it.say(request(1, "test.tame", {}), request(2, "test.leave", {}), request(3, "test.tame", {}))
    first, left, gone = await it.answers(3)
    assert "result" in first
    assert "result" in left
    assert gone["error"]["code"] in (-32601, -32004)


async def test_a_method_that_is_switched_off_is_not_served_from_memory(it: Conversation) -> None:
    await it.say(request(1, "test.plain", {"value": 1}))
    assert (await it.answers(1))[0]["result"] == 1
    it.host.table.replace("test", [])
    await it.say(request(2, "test.plain", {"value": 1}))
    assert "error" in (await it.answers(1))[0]


async def test_what_calls_took_is_recorded_and_what_was_refused_is_not(it: Conversation) -> None:
    await it.say(
        *(request(n, "test.plain", {}) for n in range(3)), request(3, "test.plain"), request(4, "test.plain", 1)
    )
    await it.say(request(5, "test.fail", {}), request(6, "test.slow", {}), request(7, "test.wait", {}))
    await it.answers(7)
    figures = it.host.timings.figures()
    assert (figures["test.plain"].calls, figures["test.plain"].failures) == (4, 0)
    assert (figures["test.fail"].calls, figures["test.fail"].failures) == (1, 1)
    assert (figures["test.slow"].calls, figures["test.slow"].timeouts, figures["test.slow"].in_flight) == (1, 1, 0)
    assert figures["test.slow"].longest >= 0.02
    assert (figures["test.wait"].calls, figures["test.wait"].in_flight) == (0, 1)
    await it.say(cancel(7))
    await it.answers(1)
    waited = it.host.timings.figures()["test.wait"]
    assert (waited.calls, waited.failures, waited.in_flight) == (1, 0, 0), (
        "a client that changed its mind is no failure"
    )


# -- one answer, whatever happens -----------------------------------------------------------------------------------


async def test_a_request_past_its_deadline_ends_with_its_error(it: Conversation) -> None:
    await it.say(request(1, "test.slow", {}))
    (answer,) = await it.answers(1)
    assert code(answer) == -32006
    assert answer["error"]["data"] == {"type": "deadline_exceeded", "retryable": True, "seconds": 0.02}


@pytest.mark.parametrize("name", ["test.end", "test.end_later"])
@pytest.mark.parametrize("how", ENDS)
async def test_however_a_handler_ends_it_is_answered_and_so_is_what_came_with_it(
    it: Conversation, name: str, how: str
) -> None:
    await it.say(request(1, name, {"value": how}), request(2, "test.tame", {}))
    answers = sorted(await it.answers(2), key=lambda answer: answer["id"])
    assert code(answers[0]) == -32603
    assert answers[0]["error"]["data"]["errorId"]
    assert answers[1]["result"] == 0
    await it.say(b"[%b]\n" % json.dumps(request(1, name, {"value": how})).encode())
    with anyio.fail_after(5):
        while not any(isinstance(m, list) for m in it.transport.written):
            it.transport.wrote.clear()
            await it.transport.wrote.wait()
    [[answer]] = it.transport.written
    assert code(answer) == -32603


async def test_a_revoked_lease_ends_its_request_as_reloaded(it: Conversation) -> None:
    await it.say(request(1, "test.wait", {}))
    generation = it.host.lifecycle.extensions["test"].current
    assert generation is not None
    (lease,) = generation.leases
    assert isinstance(lease, Lease)
    lease.revoke()
    (answer,) = await it.answers(1)
    assert (code(answer), answer["error"]["data"]["type"]) == (-32050, "extension_reloaded")
    assert not generation.leases


async def test_a_handler_that_does_not_mind_being_cancelled_has_the_last_word(it: Conversation) -> None:
    await it.say(request(1, "test.stubborn", {"value": 5}), cancel(1), cancel(1), cancel("no such"))
    it.ways.release.set()
    assert (await it.answers(1))[0]["result"] == 5
    assert it.ways.seen == ["cancelled"]


async def test_a_handler_that_outlives_the_conversation_is_answered_for_and_only_once(
    it: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.rpc.peer.CLOSE_LIMIT", 0.05)
    await it.say(request(1, "test.stubborn", {}), [request(2, "test.stubborn", {})])
    await it.peer.aclose()
    alone, [in_a_batch] = await it.answers(2)
    assert [(a["id"], code(a)) for a in (alone, in_a_batch)] == [(1, -32800), (2, -32800)]
    it.ways.release.set()
    await asyncio.sleep(0.01)
    assert it.silent()


async def test_an_answer_larger_than_a_message_may_be_is_a_defect_and_answered(
    it: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_MESSAGE", 1000)
    for name in ("test.plain", "test.at_once"):
        await it.say(request(1, name, {"value": "x" * 2000}))
        assert code((await it.answers(1))[0]) == -32603


async def test_answers_of_a_batch_that_are_too_long_together_leave_as_several_arrays(
    it: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_MESSAGE", 1000)
    await it.say([request(n, "test.plain", {"value": "x" * 300}) for n in range(5)])
    with anyio.fail_after(5):
        while sum(len(m) for m in it.transport.written) < 5:
            it.transport.wrote.clear()
            await it.transport.wrote.wait()
    assert [[a["id"] for a in m] for m in it.transport.written] == [[0, 1], [2, 3], [4]]


async def test_what_follows_exit_is_for_nobody(it: Conversation) -> None:
    exit = {"jsonrpc": "2.0", "method": "exit"}
    await it.say(request(1, "test.plain", {}), exit, request(2, "test.plain", {}), b"no JSON\n")
    await it.peer.aclose()
    assert [m["id"] for m in it.transport.written] == [1]


# -- a client that is far behind --------------------------------------------------------------------------------------


async def test_requests_wait_while_the_client_does_not_read_and_keep_their_order(it: Conversation) -> None:
    it.transport.fill()
    await it.say(*(request(n, "test.plain", {"value": n}) for n in range(100)))
    assert it.silent()
    it.transport.free()
    assert [a["result"] for a in await it.answers(100)] == list(range(100))
    assert not it.transport.paused


async def test_past_a_bound_nothing_more_is_read_until_the_client_reads(it: Conversation) -> None:
    it.transport.fill()
    sent = 0
    while not it.transport.paused:
        await it.say(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % sent)
        sent += 1
        assert sent < 50_000
    it.transport.free()
    assert [a["id"] for a in await it.answers(sent)] == list(range(sent))
    assert not it.transport.paused


async def test_what_ends_something_is_heard_at_once_and_what_it_ends_in_its_turn(it: Conversation) -> None:
    await it.say(request(1, "test.wait", {}))
    it.transport.fill()
    await it.say(cancel(1), request(2, "test.wait", {}), cancel(2), request(3, "test.plain", {"value": 3}))
    assert code((await it.answers(1))[0]) == -32800, "it ran already"
    assert it.silent()
    it.transport.free()
    second, third = await it.answers(2)
    assert {second["id"], third["id"]} == {2, 3}
    await it.say({"jsonrpc": "2.0", "method": "exit"})
    assert it.peer.closed.is_set()


async def test_exit_is_heard_of_a_client_that_does_not_read_and_what_waited_is_answered(it: Conversation) -> None:
    it.transport.fill()
    await it.say(request(1, "test.plain", {}), request(2, "test.plain", {}), {"jsonrpc": "2.0", "method": "exit"})
    assert it.peer.closed.is_set()
    await it.peer.aclose()
    assert [(a["id"], code(a)) for a in await it.answers(2)] == [(1, -32003), (2, -32003)]


async def test_what_waits_at_the_end_and_is_no_request_is_refused_too(it: Conversation) -> None:
    it.transport.fill()
    long = b'{"x":"' + b"x" * MAX_MESSAGE + b'"}\n'
    await it.say(long, b"no JSON\n", request(1, "test.plain", {}), {"jsonrpc": "2.0", "method": "exit"})
    await it.peer.aclose()
    assert [(a["id"], code(a)) for a in await it.answers(3)] == [(None, -32600), (None, -32700), (1, -32003)]


# -- starting at once -----------------------------------------------------------------------------------------------


async def test_a_task_is_begun_at_once_from_a_callback_and_soon_from_a_task() -> None:
    loop = asyncio.get_running_loop()
    start = starter(loop)
    order: list[Any] = []

    async def work(name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        order.append((name, task.get_name()))
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        order.append(f"{name} ends")

    tasks: list[asyncio.Task[None]] = []

    def callback() -> None:
        tasks.append(start(work("callback"), "first"))
        order.append("started")

    loop.call_soon(callback)
    await asyncio.sleep(0)
    tasks.append(start(work("task"), "second"))
    await asyncio.gather(*tasks)
    assert order[:2] == [("callback", "first"), "started"]
    assert ("task", "second") in order
    assert order[-1] == "task ends"
    assert "call_soon" not in vars(loop), "the loop is as it was"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the interpreter's own way needs no help")
async def test_what_others_ask_of_the_loop_while_a_task_is_made_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    # A task's name is asked for its text while the task is made: here, as any finalizer may, it speaks to the loop.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    seen: list[str] = []
    future.add_done_callback(lambda _: seen.append("future"))
    outer = starter(loop)

    async def work(name: str) -> None:
        seen.append(name)

    class Finalizer(str):
        __slots__ = ()

        def __str__(self) -> str:
            future.set_result(None)
            loop.call_soon(seen.append, "call_soon")
            tasks.append(outer(work("inner"), "inner"))
            return "outer"

    tasks: list[asyncio.Task[None]] = []
    loop.call_soon(lambda: tasks.append(outer(work("outer"), Finalizer())))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert sorted(seen) == ["call_soon", "future", "inner", "outer"]
    assert "call_soon" not in vars(loop)


async def test_a_loop_whose_call_soon_somebody_replaced_keeps_it() -> None:
    loop = asyncio.get_running_loop()
    start, original = starter(loop), loop.call_soon
    seen: list[Any] = []

    def traced(*args: Any, **more: Any) -> Any:
        seen.append(args)
        return original(*args, **more)

    async def work() -> None:
        pass

    done: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    loop.call_soon(lambda: done.set_result(start(work(), "work")))
    loop.call_soon = traced  # type: ignore[method-assign, assignment]
    try:
        await (await done)
        assert vars(loop)["call_soon"] is traced
        assert seen or sys.version_info >= (3, 12)
    finally:
        del loop.call_soon


async def test_a_task_that_is_begun_at_once_ends_as_others_do() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    start = starter(loop)

    async def fail() -> None:
        raise ZeroDivisionError

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    loop.call_soon(lambda: tasks.extend([start(fail(), "fail"), start(cancel_itself(), "cancel"), start(fail(), "x")]))
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, False, True]
    assert asyncio.current_task() not in tasks
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [ZeroDivisionError, asyncio.CancelledError, ZeroDivisionError]


def test_on_a_loop_of_another_kind_tasks_are_ordinary() -> None:
    class Other(asyncio.SelectorEventLoop):
        def call_soon(self, *args: Any, **more: Any) -> Any:  # type: ignore[override]
            return super().call_soon(*args, **more)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ran = asyncio.Event()

        async def work() -> None:
            ran.set()

        tasks: list[asyncio.Task[None]] = []
        loop.call_soon(lambda: tasks.append(starter(loop)(work(), "work")))
        with anyio.fail_after(5):
            await ran.wait()
        await tasks[0]

    with asyncio.Runner(loop_factory=Other) as runner:
        runner.run(main())


async def test_what_a_handler_sets_in_its_context_stays_in_it() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="outside")
    loop = asyncio.get_running_loop()

    async def work() -> None:
        variable.set("inside")

    done: asyncio.Future[str] = loop.create_future()

    def callback() -> None:
        starter(loop)(work(), "work")
        done.set_result(variable.get())

    loop.call_soon(callback)
    assert await done == "outside"


def test_a_plain_function_cannot_have_stream_items() -> None:
    class Wrong:
        @method("test.items", item=int)
        def items(self, params: Empty, call: Call) -> None:
            """It could not wait for a slow reader."""

    with pytest.raises(TypeError, match="async def"):
        methods_of(Wrong())

"""Malformed input without end: whatever comes, nothing is raised, and a valid request behind it is answered, once.

Two fuzzers: one makes messages that are nearly JSON-RPC (hypothesis, which finds the smallest case of what it finds),
one damages bytes (quick, by its own random numbers). A short run by default; `JAN_TEST_FUZZ=100000` feeds at least so
many malformed inputs, and `pytest -s` prints how many it were.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jan_core import Call, Empty, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.rpc.framing import Splitter
from jan_core.rpc.peer import Peer
from jan_core.testing import InlineSource

A_CONVERSATION = 20
"""Malformed inputs in one conversation."""

CONVERSATIONS = -(-int(os.environ.get("JAN_TEST_FUZZ", "2000")) // A_CONVERSATION // 4)
"""Of each of four: two fuzzers in two framings."""

CALM = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
VALID = b'{"jsonrpc":"2.0","id":"valid-%d","method":"%b","params":{%b}}'
KINDS = [(b"ping", b""), (b"fuzz.echo", b'"text":"x"'), (b"fuzz.later", b'"text":"x"'), (b"fuzz.count", b'"text":"xy"')]
INITIALIZE = b'{"jsonrpc":"2.0","id":"init","method":"initialize"}'


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    more: dict[str, Any] = {}


class Fuzzed:
    """One method of each kind; none of them has a defect."""

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("fuzz.echo")
    def echo(self, params: Text) -> Text:
        """The text again."""
        return params

    @method("fuzz.later", deadline=30.0)
    async def later(self, params: Text) -> Text:
        """The text again, after others had their turn."""
        await asyncio.sleep(0)
        return params

    @method("fuzz.count", item=str)
    async def count(self, params: Text, call: Call) -> Text:
        """Its characters."""
        for character in params.text:
            call.progress(character)
            await call.send(character)
        return params

    @method("fuzz.wait")
    async def wait(self, params: Empty) -> Empty:
        """Until it is cancelled."""
        await asyncio.Event().wait()
        return params


class Sink:
    """A transport that keeps what was written."""

    blocked = full = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drained(self) -> None:
        return

    def pause(self) -> None:
        raise AssertionError("nothing is full")

    resume = pause


House = tuple[asyncio.Runner, Host]
Converse = Callable[[list[bytes], random.Random, bool], None]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One host for all conversations, and the event loop that it runs on."""
    with asyncio.Runner() as runner:
        folder: Path = tmp_path_factory.mktemp("fuzz")
        host = Host(folder, sources=[InlineSource("fuzz", Fuzzed, ["fuzz."])])
        runner.run(host.__aenter__())
        runner.run(host.activate_startup())
        yield runner, host
        runner.run(host.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def converse(house: House) -> Iterator[Converse]:
    """Hold a conversation: each malformed input is followed by a valid request."""
    runner, host = house
    defects: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            defects.append(record.getMessage())

    listener = Listener(logging.ERROR)
    logging.getLogger("jan_core").addHandler(listener)

    def run(noise: list[bytes], chance: random.Random, framed: bool) -> None:
        defects.clear()
        written = runner.run(conversation(host, noise, chance, framed))
        assert not defects, defects
        check(written, len(noise))

    yield run
    logging.getLogger("jan_core").removeHandler(listener)


async def conversation(host: Host, noise: list[bytes], chance: random.Random, framed: bool) -> list[Any]:
    """What was answered, in order."""
    framing, sink = Splitter(), Sink()
    framing.content_length = framed
    stream = framing.frames([INITIALIZE])
    for number, bad in enumerate(noise):
        name, params = chance.choice(KINDS)
        stream += framing.frames([bad, VALID % (number, name, params)])
    peer = Peer(host, sink)
    loop = asyncio.get_running_loop()
    at = 0
    while at < len(stream):
        size = chance.choice((1, 7, 64, 500, 5_000, 100_000))
        if chance.random() < 0.8:
            loop.call_soon(peer.feed, stream[at : at + size])  # as a transport does
        else:
            peer.feed(stream[at : at + size])
        await asyncio.sleep(0)
        at += size
    for _ in range(5):
        await asyncio.sleep(0)
    await peer.aclose()
    answers = Splitter()
    return [json.loads(m) for data in sink.written for m in answers.feed(data) if isinstance(m, bytes)]


def check(written: list[Any], valid: int) -> None:
    flat = [m for message in written for m in (message if isinstance(message, list) else [message])]
    for message in flat:
        assert message["jsonrpc"] == "2.0"
        assert ("method" in message) + ("result" in message) + ("error" in message) == 1, message
        assert message.get("error", {}).get("code") != -32603, message
    answers = Counter(m["id"] for m in flat if "method" not in m and isinstance(m["id"], str))
    assert [n for n in range(valid) if answers[f"valid-{n}"] != 1] == []
    assert all("result" in m for m in flat if str(m.get("id")).startswith("valid-"))


def harmless(data: bytes) -> bool:
    """Whether an input leaves the conversation open and the valid requests alone."""
    return not any(word in data for word in (b"exit", b"shutdown", b"valid-"))


# -- nearly JSON-RPC --------------------------------------------------------------------------------------------------

ids: st.SearchStrategy[Any] = st.sampled_from([0, 1, 2, "a", "", None, 1.5, -1, 2**63, 2**64, 10**400, True, [], {}])
names = st.sampled_from(
    ["ping", "fuzz.echo", "fuzz.later", "fuzz.count", "fuzz.wait", "fuzz.no", "no.such", "initialize", "initialized",
     "$/cancelRequest", "$/stream", "extensions.list", "settings.get", "", 7, None, "fuzz.echo\x00"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
params = values | st.fixed_dictionaries(
    {}, optional={"text": st.text(max_size=5) | values, "more": values, "id": ids, "progressToken": ids, "x": values}
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2, None]),
        "id": ids,
        "method": names,
        "params": params,
        "result": values,
        "error": values,
        "extra": values,
    },
)
texts = (messages | st.lists(messages, max_size=4) | values).map(lambda m: json.dumps(m, ensure_ascii=False))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    text = draw(texts).encode("utf-8", "surrogatepass")
    kind = draw(st.sampled_from(["whole", "cut", "doubled", "replaced", "nested"]))
    at = draw(st.integers(0, len(text)))
    if kind == "cut":
        return text[:at]
    if kind == "doubled":
        return text[:at] + text
    if kind == "replaced":
        return text[:at] + draw(st.binary(max_size=3)) + text[at + 1 :]
    if kind == "nested":
        depth = draw(st.sampled_from([100, 127, 128, 129, 2_000]))
        return b'{"a":' * depth + text + b"}" * depth
    return text


@pytest.mark.parametrize("framed", [False, True], ids=["lines", "headers"])
def test_nearly_valid_messages_harm_nobody(converse: Converse, framed: bool) -> None:
    count = 0

    @settings(max_examples=CONVERSATIONS, **CALM)  # type: ignore[arg-type]
    @given(st.lists(damaged().filter(harmless), min_size=A_CONVERSATION, max_size=A_CONVERSATION), st.randoms())
    def run(noise: list[bytes], chance: random.Random) -> None:
        nonlocal count
        count += len(noise)
        converse(noise, chance, framed)

    run()
    print(f"{count} nearly valid inputs")
    assert count >= CONVERSATIONS * A_CONVERSATION


# -- damaged bytes ----------------------------------------------------------------------------------------------------

SOUND = [
    b'{"jsonrpc":"2.0","id":1,"method":"fuzz.echo","params":{"text":"h\xc3\xa9llo","more":{"a":[1,2.5,null,true]}}}',
    b'{"jsonrpc":"2.0","id":2,"method":"fuzz.later","params":{"text":"x","progressToken":7}}',
    b'{"jsonrpc":"2.0","id":3,"method":"fuzz.count","params":{"text":"xyz","progressToken":"t"}}',
    b'{"jsonrpc":"2.0","id":4,"method":"fuzz.wait"}',
    b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":4}}',
    b'[{"jsonrpc":"2.0","id":5,"method":"ping"},{"jsonrpc":"2.0","method":"fuzz.later"},{"jsonrpc":"2.0","id":6}]',
    b'{"jsonrpc":"2.0","id":7,"result":{}}',
    b"",
]
SPICE = [
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\n",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xe2\x80\xa8",
        b"null",
    ),
    *(b"1e999", b"-", b"0" * 400, b"[" * 200, b'{"":' * 200, b'"progressToken":', b'"id":4,', b"\xef\xbb\xbf"),
]


def damage(chance: random.Random) -> bytes:
    text = bytearray(chance.choice(SOUND))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randint(0, len(text))
        to = min(len(text), at + chance.choice((1, 1, 4, 30)))
        match chance.randrange(6):
            case 0:
                text[at:to] = chance.choice(SPICE)
            case 1:
                text[at:at] = chance.choice(SPICE)
            case 2:
                del text[at:to]
            case 3:
                text[at:at] = text[at:to] * 2
            case 4:
                text[at:at] = chance.choice(SOUND)
            case _:
                text[at:to] = chance.randbytes(to - at)
    return bytes(text)


@pytest.mark.parametrize("framed", [False, True], ids=["lines", "headers"])
def test_damaged_bytes_harm_nobody(converse: Converse, framed: bool) -> None:
    count = 0
    for seed in range(CONVERSATIONS):
        chance = random.Random(f"{framed} {seed}")
        noise = [damage(chance) for _ in range(A_CONVERSATION)]
        assert all(map(harmless, noise))
        try:
            converse(noise, chance, framed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {noise}") from error
        count += len(noise)
    print(f"{count} damaged inputs")


parts = st.lists(st.binary(max_size=60) | st.sampled_from([b"ontent-Length: 5", b"\r\n\r\n", b"5\n", b":", b"{}"]))


@settings(max_examples=CONVERSATIONS, **CALM)  # type: ignore[arg-type]
@given(parts)
def test_bytes_that_are_no_headers_end_the_conversation_with_the_reason(house: House, data: list[bytes]) -> None:
    runner, host = house

    async def run() -> None:
        sink = Sink()
        peer = Peer(host, sink)
        for part in [b"C", *data]:
            peer.feed(part)
        if peer.closed.is_set():
            _, _, last = sink.written[-1].rpartition(b"\r\n\r\n")
            assert json.loads(last)["error"]["code"] == -32700
        await peer.aclose()

    runner.run(run())

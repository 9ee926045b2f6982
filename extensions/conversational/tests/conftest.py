"""A house with the real extensions and a test engine whose every word is known in advance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from jan_core import Call, JanError, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.loader import installed
from jan_core.testing import InlineSource
from jan_core.types import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Message,
    MessageStatus,
    Thread,
    Usage,
)


class WorkerDied(JanError):
    """As an engine says that its worker is gone."""

    code, type, retryable = -32041, "worker_died", True


class CountTokens(msgspec.Struct):
    messages: list[ChatMessage]
    model: str = ""


class TokenCount(msgspec.Struct):
    tokens: int
    per_message: list[int]
    context: int


class EchoEngine:
    """Answers with the newest message's words, one chunk a word; a word is a token, and a template adds two.

    After `pause_after` words it waits for `go_on`, having set `paused`; `fail_with` is raised there instead.
    """

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.added: list[Message] = []
        self.counted: list[int] = []
        """How many messages each count was asked for."""
        self.context = 1000
        self.pause_after = -1
        self.fail_with: Exception | None = None
        self.streams = True
        self.counts_slowly = False
        self.paused = anyio.Event()
        self.go_on = anyio.Event()

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @hookimpl
    async def jan_message_added(self, thread: Thread, message: Message) -> None:
        self.added.append(message)

    @method("tokens.count")
    async def count(self, params: CountTokens, call: Call) -> TokenCount:
        """Words."""
        call.progress("loading", done=1, total=2)
        self.counted.append(len(params.messages))
        if self.counts_slowly:
            self.paused.set()
            await self.go_on.wait()
        per_message = [len(m.text().split()) for m in params.messages]
        return TokenCount(sum(per_message) + 2, per_message, self.context)

    @method("chat.complete", item=ChatChunk, errors=[WorkerDied])
    async def complete(self, params: ChatRequest, call: Call) -> ChatCompletion:
        """The newest message again."""
        self.requests.append(params)
        call.progress("waiting")
        words = params.messages[-1].text().split(" ")
        for number, word in enumerate(words):
            if number == self.pause_after:
                if self.fail_with is not None:
                    raise self.fail_with
                self.paused.set()
                await self.go_on.wait()
            if self.streams:
                text = word if number == 0 else " " + word
                await call.send(ChatChunk("c", 0, "echo", [ChunkChoice(ChatDelta(content=text))]))
        answer = ChatMessage(role="assistant", content=" ".join(words))
        usage = Usage(1, len(words), 1 + len(words))
        return ChatCompletion("c", 0, "echo", [ChatChoice(answer, finish_reason="stop")], usage)


class House:
    """An open host, the engine in it, and a client."""

    def __init__(self, host: Host, engine: EchoEngine) -> None:
        self.host, self.engine, self.client = host, engine, host.client("test")
        self.call = self.client.call

    async def thread(self, **params: Any) -> str:
        """A new thread's id."""
        thread: Thread = await self.call("threads.create", params, result=Thread)
        return thread.id

    async def messages(self, thread_id: str) -> list[Message]:
        page = await self.call("messages.list", {"thread_id": thread_id, "limit": 1000})
        assert "cursor" not in page
        return msgspec.convert(page["messages"], list[Message])

    async def answer(self, thread_id: str, status: MessageStatus) -> Message:
        """The thread's newest message, once it is an answer of that status."""
        while True:
            for newest in (await self.messages(thread_id))[-1:]:
                if (newest.role, newest.status) == ("assistant", status):
                    return newest
            await anyio.lowlevel.checkpoint()


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(open_host: Any, tmp_path: Path) -> OpenHouse:
    """Open a house: `open_house(engine=…, without=("tokens",))`. The same data folder each time."""

    @asynccontextmanager
    async def opener(
        *,
        engine: EchoEngine | None = None,
        serves: tuple[str, ...] = ("chat.", "tokens."),
        without: tuple[str, ...] = (),
        also: tuple[InlineSource, ...] = (),
        data_dir: Path | None = None,
    ) -> AsyncIterator[House]:
        engine = engine or EchoEngine()
        own = [s for s in installed() if s.id in ("assistant", "conversational") and s.id not in without]
        plugin: object = engine if serves == ("chat.", "tokens.") else _Only(engine, serves)
        sources = [*own, InlineSource("echo", plugin, serves), *also]
        async with open_host(sources=sources, data_dir=data_dir) as host:
            yield House(host, engine)

    return opener


class _Only:
    """Some of an engine's methods."""

    def __init__(self, engine: EchoEngine, serves: tuple[str, ...]) -> None:
        self._engine, self._serves = engine, serves

    @hookimpl
    def jan_methods(self) -> Any:
        return [m for m in methods_of(self._engine) if m.name.startswith(self._serves)]


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"

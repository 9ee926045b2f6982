"""A test engine: an extension that serves the inference methods by following orders in the question itself.

It stands where the real engine stands in the method table, so that what is tested here (HTTP, the command line) is
tested against timing and failures that no real model produces on demand.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from struct import pack
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from jan_core import Call, JanError, Overloaded, hookimpl, method, methods_of
from jan_core.types import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    CompletionChoice,
    CompletionRequest,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
    FunctionCall,
    FunctionDelta,
    InstalledModel,
    TextCompletion,
    ToolCall,
    ToolCallDelta,
    Usage,
)

MODEL = "scripted-1"
METHODS = ("models.", "chat.", "completions.", "embeddings.", "tokens.", "engines.", "remotes.")


class ModelNotFound(JanError):
    """As the real engine has it."""

    code, type = -32044, "model_not_found"


class WorkerDied(JanError):
    """As the real engine has it."""

    code, type, retryable = -32030, "worker_died", True


class ContextOverflow(JanError):
    """As the real engine has it."""

    code, type = -32032, "context_overflow"


class OutOfMemory(JanError):
    """As the real engine has it."""

    code, type = -32038, "out_of_memory"


class InvalidGeneration(JanError):
    """As the real engine has it."""

    code, type = -32035, "invalid_generation"


class InvalidImage(JanError):
    """As the real engine has it."""

    code, type = -32052, "invalid_image"


class ModelId(msgspec.Struct):
    id: str


class LoadModel(msgspec.Struct, omit_defaults=True):
    id: str
    n_ctx: int | None = None
    kv_type: str | None = None
    repack: bool | None = None
    adapters: list[dict[str, Any]] | None = None
    force: bool = False


class LoadedModel(msgspec.Struct):
    memory: list[dict[str, Any]]


class ModelList(msgspec.Struct):
    models: list[InstalledModel]


class RemoteList(msgspec.Struct):
    remotes: list[dict[str, Any]]
    kept_here: str = ""


class CountRequest(msgspec.Struct):
    messages: list[ChatMessage]
    model: str = ""


class CountResult(msgspec.Struct):
    tokens: int
    per_message: list[int]
    context: int


class Anything(msgspec.Struct):
    """Params that are not looked at."""


class ScriptedEngine:
    """Orders: `say TEXT`, `echo TEXT`, `count N`, `hang after N`, `fail after N`, `work N`,
    `slow N`, `request`, `long`, `tool`, `escape`, `overflow`, `busy`, `defect`, `blind`, `blur N`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: nothing was asked yet."""
        self.requests: list[ChatRequest | CompletionRequest | EmbeddingRequest] = []
        self.running = 0
        self.sent = 0
        self.working = threading.Event()
        self.hanging = threading.Event()
        self.cancelled = threading.Event()
        self.loaded = False
        self.load_options: dict[str, Any] = {}
        self.remotes = RemoteList([])

    @hookimpl
    def jan_activate(self) -> None:
        pass

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @method("remotes.list")
    async def list_remotes(self, params: Anything) -> RemoteList:
        """The remote engines a test wants."""
        return self.remotes

    @method("models.list")
    async def list_models(self, params: Anything) -> ModelList:
        """The one model."""
        model = InstalledModel(
            MODEL,
            "Scripted",
            "/secret/place.gguf",
            1234,
            state="loaded" if self.loaded else "available",
            imported_at="2026-01-02T03:04:05Z",
        )
        return ModelList([model])

    @method("models.load")
    async def load(self, params: LoadModel) -> LoadedModel:
        """Mark it as loaded, and keep the options. A million tokens are too many."""
        self._check(params.id)
        if params.n_ctx == 1_000_000:
            raise OutOfMemory("it does not fit")
        self.loaded = True
        self.load_options = msgspec.to_builtins(params)
        del self.load_options["id"]
        return LoadedModel(memory=[{"device": "cpu", "needed": 3_000_000_000}])

    @method("models.unload")
    async def unload(self, params: ModelId) -> Anything:
        """Mark it as not loaded."""
        self._check(params.id)
        self.loaded = False
        return Anything()

    @method("tokens.count")
    async def count(self, params: CountRequest) -> CountResult:
        """A token is a word."""
        each = [len(message.text().split()) for message in params.messages]
        return CountResult(sum(each), each, 4096)

    @method("chat.complete", item=ChatChunk)
    async def chat(self, params: ChatRequest, call: Call) -> ChatCompletion:
        """Do as the last message says."""
        self._check(params.model)
        self.requests.append(params)
        pieces: list[str] = []
        reason: Any = "stop"
        tool_calls = None
        order = params.messages[-1].text().strip()

        async def send(delta: ChatDelta, finish: Any = None, usage: Usage | None = None) -> None:
            choices = [] if usage else [ChunkChoice(delta, finish_reason=finish)]
            await call.send(ChatChunk("chatcmpl-1", 1700000000, MODEL, choices, usage))
            self.sent += 1

        self.running += 1
        try:
            async for piece in self._pieces(order, call):
                if not pieces:
                    await send(ChatDelta(role="assistant"))
                pieces.append(piece)
                await send(ChatDelta(content=piece))
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        if order == "tool":
            tool_calls = [ToolCall("call_1", FunctionCall("get_weather", '{"city": "Lima"}'))]
            reason = "tool_calls"
            function = FunctionDelta("get_weather", '{"city": "Lima"}')
            await send(ChatDelta(tool_calls=[ToolCallDelta(0, function, "call_1", "function")]))
        if order == "long":
            reason = "length"
        await send(ChatDelta(), finish=reason)
        usage = Usage(3, len(pieces), 3 + len(pieces))
        if params.stream_options is not None and params.stream_options.include_usage:
            await send(ChatDelta(), usage=usage)
        text = "".join(pieces)
        message = ChatMessage("assistant", text if tool_calls is None else None, tool_calls=tool_calls)
        return ChatCompletion("chatcmpl-1", 1700000000, MODEL, [ChatChoice(message, finish_reason=reason)], usage)

    @method("completions.create", item=TextCompletion)
    async def complete(self, params: CompletionRequest, call: Call) -> TextCompletion:
        """Do as the prompt says."""
        self._check(params.model)
        self.requests.append(params)
        pieces = []
        async for piece in self._pieces(params.prompt, call):
            pieces.append(piece)
            await call.send(TextCompletion("cmpl-1", 1700000000, MODEL, [CompletionChoice(piece)]))
        await call.send(TextCompletion("cmpl-1", 1700000000, MODEL, [CompletionChoice("", finish_reason="stop")]))
        choice = CompletionChoice("".join(pieces), finish_reason="stop")
        return TextCompletion("cmpl-1", 1700000000, MODEL, [choice], Usage(1, len(pieces), 1 + len(pieces)))

    @method("embeddings.create", item=Embedding)
    async def embed(self, params: EmbeddingRequest, call: Call) -> EmbeddingList:
        """The length of each text and its place, as a vector. `hang` has none: it is waited for; `long` is too long."""
        self._check(params.model)
        self.requests.append(params)
        texts = params.input if isinstance(params.input, list) else [params.input]
        vectors = [[float(len(str(text))), float(index)] for index, text in enumerate(texts)]
        data = [
            Embedding(b64encode(pack("<2f", *vector)).decode() if params.encoding_format == "base64" else vector, index)
            for index, vector in enumerate(vectors)
        ]
        if params.stream:
            for text, item in zip(texts, data, strict=True):
                if text == "long":
                    raise ContextOverflow(f"text {item.index} is too long", index=item.index)
                if text == "hang":
                    self.hanging.set()
                    await anyio.sleep_forever()
                await call.send(item)
        return EmbeddingList([] if params.stream else data, MODEL, EmbeddingUsage(len(texts), len(texts)))

    def _check(self, model: str) -> None:
        if model not in ("", MODEL):
            raise ModelNotFound(f"there is no model {model!r} here; installed: {MODEL}", known=[MODEL])

    async def _pieces(self, order: str, call: Call) -> Any:
        verb, rest = [*order.split(maxsplit=1), ""][:2]
        number = next((int(word) for word in rest.split() if word.isdecimal()), 0)
        if verb == "busy":
            raise Overloaded("all places are taken")
        if verb == "defect":
            raise RuntimeError("a secret detail")
        if verb == "blind":
            raise InvalidGeneration("this model takes no pictures", reason="no_projector")
        if verb == "blur":
            raise InvalidImage("the picture is damaged", index=number)
        if verb == "overflow":
            raise ContextOverflow("too long", n_prompt=9, n_ctx=8)
        if verb == "work":
            self.working.set()
            for step in range(number):
                call.progress(f"building {step} of {number}", done=step, total=number)
                await anyio.sleep(0.02)
        if verb in ("count", "hang", "fail"):
            for step in range(1, number + 1):
                yield f"{step} "
                await anyio.lowlevel.checkpoint()
        if verb == "slow":
            for step in range(number):
                yield f"{step} "
                await anyio.sleep(0.02)
        if verb == "request":
            yield msgspec.json.encode(self.requests[-1]).decode()
        if verb == "hang":
            self.hanging.set()
            await anyio.sleep_forever()
        elif verb == "fail":
            raise WorkerDied("the worker ended", signal=9)
        elif verb == "escape":
            yield "red \x1b[31malarm\x1b[0m \x9b2J\x07 done"
        elif verb == "say":
            for word in rest.split(" "):
                yield word + " "
        elif verb == "echo":
            yield rest
        elif verb in ("work", "long"):
            yield "done"
        elif verb not in ("count", "tool", "slow", "request"):
            yield f"unknown order {verb!r}"

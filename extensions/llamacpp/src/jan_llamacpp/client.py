"""The host's side of a worker: start it, ask it, and a typed error for every way it can fail.

    worker = await WorkerProcess.start(engine_dir, model)
    async for piece in worker.generate(GenerateParams(Prompt(text="Hello"))):
        print(piece.text)
    await worker.close()

One `WorkerProcess` is one process with one model. Which models are loaded, and what happens after a death, is
decided elsewhere. Not thread-safe: for the event loop it was made on.

Back-pressure: the pipe is always read, so a consumer that is slow, or that stops, never holds up another's
stream. Its own pieces wait in memory; they are bounded by `max_tokens` or the context (some ten bytes a
token).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from jan_core.errors import JanError

from .causes import LOG_LINES, Cause, Kind, memory_cause
from .failures import (
    EngineBroken,
    InvalidGeneration,
    ModelLoadFailed,
    OutOfMemory,
    WorkerDied,
    WorkerHung,
    error_from_worker,
)
from .supervise import Child, ExitReason
from .watchdog import Watchdog
from .worker.frames import FrameError
from .worker.protocol import (
    PROTOCOL,
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    Failed,
    Finish,
    ForgetThread,
    FromWorker,
    Generate,
    GenerateParams,
    Grammar,
    Hello,
    Load,
    Loaded,
    LoadOptions,
    LoadProgress,
    ModelInfo,
    Pieces,
    Prompt,
    Sampling,
    Shutdown,
    Stats,
    StatsReply,
    StatsRequest,
    TokenLogprob,
    ToWorker,
    Usage,
)

__all__ = [
    "Embedded",
    "ExitReason",
    "GenerateParams",
    "Grammar",
    "LoadOptions",
    "ModelInfo",
    "Piece",
    "Prompt",
    "Sampling",
    "Stats",
    "TokenLogprob",
    "Usage",
    "WorkerProcess",
    "death",
]

HELLO_SECONDS = 60.0
CLOSE_SECONDS = 3.0
HANG_SECONDS = 300.0
_DEATHS: dict[Kind, type[WorkerDied]] = {
    "hung": WorkerHung,
    "out_of_memory": OutOfMemory,
    "device_out_of_memory": OutOfMemory,
}
_WATCH = 0
"""The id of the watchdog's questions."""


class Piece(msgspec.Struct, frozen=True):
    """A part of answer `index`. `tokens`: how many it took. `finish` and `usage` are set on the last, whose text
    may be empty. `logprobs`: of its tokens, where they were asked for.

    `step` is the scheduler's step it came from: pieces of different answers with the same number were decoded
    together.
    """

    text: str
    tokens: int
    step: int
    finish: Finish | None = None
    usage: Usage | None = None
    index: int = 0
    logprobs: list[TokenLogprob] | None = None


class _Stream:
    """The pieces of one generation that wait for their consumer. `left`: its answers that have not ended."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._pieces: list[Piece] = []
        self._error: JanError | None = None
        self._ready = asyncio.Event()

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._ready.set()

    def fail(self, error: JanError) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> list[Piece]:
        """All that is there, at least one piece. Raises the error once the pieces before it are taken."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            self._ready.clear()
            await self._ready.wait()
        pieces, self._pieces = self._pieces, []
        return pieces


class WorkerProcess:
    """A loaded model in a process of its own. Made by `start`."""

    def __init__(self) -> None:
        self.info: ModelInfo
        self._child: Child
        self._next_id = 0
        self._streams: dict[int, _Stream] = {}
        self._embeds: set[int] = set()
        self._replies: dict[int, asyncio.Future[int] | asyncio.Future[Stats] | asyncio.Future[Embedded]] = {}
        self._loading: asyncio.Queue[Hello | LoadProgress | Loaded | Failed | ExitReason] = asyncio.Queue()
        self._reason: ExitReason | None = None
        self._watchdog: Watchdog | None = None

    @classmethod
    async def start(
        cls,
        engine_dir: Path,
        model: Path,
        options: LoadOptions | None = None,
        on_progress: Callable[[float], None] | None = None,
        *,
        hang_seconds: float = HANG_SECONDS,
    ) -> WorkerProcess:
        """Start a process and load `model` into it. `on_progress` gets fractions between 0 and 1.

        `hang_seconds`: how long one step of decoding, or the load without any progress, may take before the process is
        ended (0: for ever). Cancelling this await kills the process. Raises ModelLoadFailed (also when the engine
        aborts on the file), OutOfMemory, WorkerHung and EngineBroken.
        """
        self = cls()
        if hang_seconds:
            self._watchdog = Watchdog(hang_seconds, waiting=self._waiting, ask=self._ask, hung=self._end_hung)
        try:
            self._child = await Child.spawn(_absolute(engine_dir), self._on_message, self._on_exit)
        except OSError as error:
            raise EngineBroken(f"the worker process cannot be started: {error}") from error
        try:
            await self._load(model, options or LoadOptions(), on_progress or (lambda _done: None))
        except BaseException:
            self._child.kill()
            await asyncio.wait({self._child.exited}, timeout=CLOSE_SECONDS)
            raise
        return self

    async def generate(self, params: GenerateParams) -> AsyncIterator[Piece]:
        """The pieces of one answer, or of `params.n`, from an async generator; the last of each has `finish`. Closing
        or cancelling it ends it in the worker, too.

        Raises ContextOverflow, TemplateFailed, InvalidGeneration, Overloaded, GenerationFailed, WorkerDied and its
        kinds WorkerHung and OutOfMemory.
        """
        id, stream = self._new_id(), _Stream(params.n)
        self._streams[id] = stream
        try:
            self._send(Generate(id, params))
            left = params.n
            while left > 0:
                for piece in await stream.take():
                    left -= piece.finish is not None
                    yield piece
        finally:
            # Still there: neither finished nor failed, so the worker is still at it.
            if self._streams.pop(id, None) is not None and self._reason is None:
                self._child.send(Cancel(id))

    async def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens this prompt takes, its template's included. Raises what `generate` raises for a
        prompt.
        """
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        id = self._new_id()
        self._replies[id] = reply
        try:
            self._send(Count(id, prompt))
            return await reply
        finally:
            self._replies.pop(id, None)

    async def embed(self, prompts: list[Prompt], normalise: bool = True) -> Embedded:
        """Vectors of texts or tokens, from a model that was loaded for embeddings. For more than some dozen texts there
        is `embedding.vectors`. Cancelling ends the work at the next step.

        Raises ContextOverflow, InvalidGeneration, EmbeddingFailed, Overloaded, GenerationFailed, WorkerDied.
        """
        reply: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        id = self._new_id()
        self._replies[id] = reply
        self._embeds.add(id)
        try:
            self._send(Embed(id, prompts, normalise))
            return await reply
        except asyncio.CancelledError:
            if self._reason is None:
                self._child.send(Cancel(id))
            raise
        finally:
            self._embeds.discard(id)
            self._replies.pop(id, None)

    def forget_thread(self, thread: str) -> None:
        """Delete what this worker keeps of a conversation, in memory and on the disk."""
        if self._reason is None:
            self._child.send(ForgetThread(thread))

    async def stats(self) -> Stats:
        """The scheduler's counters. Raises WorkerDied."""
        reply: asyncio.Future[Stats] = asyncio.get_running_loop().create_future()
        id = self._new_id()
        self._replies[id] = reply
        try:
            self._send(StatsRequest(id))
            return await reply
        finally:
            self._replies.pop(id, None)

    async def close(self) -> None:
        """End the process; what is still running there ends with WorkerDied. Any number of times."""
        if self._reason is None:
            self._child.expect_exit()
            self._child.send(Shutdown())
            await asyncio.wait({self._child.exited}, timeout=CLOSE_SECONDS)
        if self._reason is None:
            self._child.kill()
            await self.exited

    def kill(self) -> None:
        """End the process without asking."""
        self._child.kill()

    @property
    def exited(self) -> asyncio.Future[ExitReason]:
        """Await it for the end of the process, expected or not. Cancelling that await does no harm."""
        return asyncio.shield(self._child.exited)

    @property
    def alive(self) -> bool:
        return self._reason is None

    @property
    def busy(self) -> int:
        """Generations and embeddings that have not ended."""
        return len(self._streams) + len(self._embeds)

    @property
    def pid(self) -> int:
        return self._child.pid

    # --- inside ---------------------------------------------------------------------------------------------

    def _new_id(self) -> int:
        if self._reason is not None:
            raise death(self._reason)
        self._next_id += 1
        if self._watchdog is not None:
            self._watchdog.start()
        return self._next_id

    def _waiting(self) -> bool:
        return bool(self._streams or self._replies or not hasattr(self, "info"))

    def _ask(self) -> None:
        self._child.send(StatsRequest(_WATCH))

    def _end_hung(self, how: str) -> None:
        self._child.end_hung(how)

    def _send(self, message: ToWorker) -> None:
        try:
            self._child.send(message)
        except (FrameError, UnicodeEncodeError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidGeneration(f"the request cannot be sent to the worker: {error}") from error

    async def _load(self, model: Path, options: LoadOptions, on_progress: Callable[[float], None]) -> None:
        key = secrets.token_hex(16)
        # The worker's directory is another one.
        self._child.send(Load(key, str(_absolute(model)), options))
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with the result.
            async with asyncio.timeout(HELLO_SECONDS):
                first = await self._loading.get()
        except TimeoutError:
            raise EngineBroken("the worker process does not answer", log=_tail(self._child.log)) from None
        if isinstance(first, ExitReason):
            raise EngineBroken(f"the worker process could not start: {first}", log=_tail(first.log))
        if not isinstance(first, Hello) or first.key != key or first.protocol != PROTOCOL:
            raise EngineBroken("the worker process is not of this version")
        if self._watchdog is not None:
            self._watchdog.start()
        while True:
            match await self._loading.get():
                case LoadProgress(done):
                    on_progress(done)
                case Loaded(info):
                    self.info = info
                    return
                case Failed() as failed:
                    # The worker ends by itself now; with its last lines the reason is complete.
                    await asyncio.wait({self._child.exited}, timeout=CLOSE_SECONDS)
                    raise self._load_error(failed)
                case ExitReason() as reason:
                    if reason.cause.kind in _DEATHS:
                        raise death(reason, f"{model.name} could not be loaded")
                    why = _reason_in(reason.log)
                    raise ModelLoadFailed(
                        f"the engine gave up on {model.name}: {why or reason}",
                        reason=why or str(reason), signal=reason.signal, exit_code=reason.code,
                        log=_tail(reason.log),
                    )  # fmt: skip
                case Hello():
                    raise EngineBroken("the worker process said hello twice")

    def _load_error(self, failed: Failed) -> JanError:
        log = self._child.log
        memory = memory_cause(log) if failed.type == ModelLoadFailed.type else None
        if memory is not None:
            return _of_cause(memory, failed.message, log=_tail(log))
        why = failed.data.get("reason") or _reason_in(log)
        message = f"{failed.message}: {why}" if why else failed.message
        return error_from_worker(failed.type, message, {**failed.data, "reason": why, "log": _tail(log)})

    def _on_message(self, message: FromWorker) -> None:
        match message:
            case Pieces(pieces):
                if self._watchdog is not None:
                    self._watchdog.worked()
                for item in pieces:
                    stream = self._streams.get(item.id)
                    if stream is not None:
                        stream.left -= item.finish is not None
                        if stream.left == 0:
                            del self._streams[item.id]
                        stream.put(
                            Piece(item.text, item.tokens, item.step, item.finish, item.usage, item.index, item.logprobs)
                        )
            case Counted(id, n_tokens):
                self._answer(id, n_tokens)
            case Embedded(id):
                if self._watchdog is not None:
                    self._watchdog.worked()
                self._answer(id, message)
            case StatsReply(id, stats) if id == _WATCH:
                if self._watchdog is not None:
                    self._watchdog.heard(stats, loading=not hasattr(self, "info"))
            case StatsReply(id, stats):
                self._answer(id, stats)
            case Failed(id) if id != 0:
                error = error_from_worker(message.type, message.message, message.data)
                stream = self._streams.pop(id, None)
                if stream is not None:
                    stream.fail(error)
                else:
                    self._refuse(id, error)
            case Hello() | LoadProgress() | Loaded() | Failed():
                if self._watchdog is not None:
                    self._watchdog.worked()
                self._loading.put_nowait(message)

    def _answer(self, id: int, value: int | Stats | Embedded) -> None:
        reply = self._replies.get(id)
        if reply is not None and not reply.done():
            reply.set_result(value)  # type: ignore[arg-type]

    def _refuse(self, id: int, error: JanError) -> None:
        reply = self._replies.get(id)
        if reply is not None and not reply.done():
            reply.set_exception(error)

    def _on_exit(self, reason: ExitReason) -> None:
        self._reason = reason
        if self._watchdog is not None:
            self._watchdog.stop()
        self._loading.put_nowait(reason)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(death(reason))
        for id in list(self._replies):
            self._refuse(id, death(reason))


def death(reason: ExitReason, what: str = "the model's process is gone") -> WorkerDied:
    """The error for those who needed a worker that ended so; `what` could not be done because of it."""
    how = {"exit_code": reason.code, "signal": reason.signal, "log": _tail(reason.log)}
    if reason.expected:
        return WorkerDied("the model was unloaded", cause="unloaded", advice="", **how)
    return _of_cause(reason.cause, what, **how)


def _of_cause(cause: Cause, what: str, **data: Any) -> WorkerDied:
    message = f"{what}: {cause.message}" + (f". {cause.advice}" if cause.advice else "")
    return _DEATHS.get(cause.kind, WorkerDied)(message, cause=cause.kind, advice=cause.advice, **data)


_REASONS = (
    re.compile(r"error loading model(?: [a-z]+)?: (.+)"),
    re.compile(r"(GGML_ASSERT\(.+\) failed)"),
    re.compile(r"gguf_init_from_\w+: (?:failed to |error: )?(.+)"),
    re.compile(r"llama_init_from_model: (?:failed to |error: )?(.+)"),
    re.compile(r"(?:what\(\):|ImportError:|OSError:) +(.+)"),
)


def _reason_in(log: str) -> str | None:
    """llama.cpp's own words for why a load failed: the last line of the most telling kind."""
    for pattern in _REASONS:
        found = pattern.findall(log)
        if found:
            return str(found[-1]).strip()
    return None


def _absolute(path: Path) -> Path:
    return path.absolute()


def _tail(log: str) -> str:
    return "\n".join(log.strip().splitlines()[-LOG_LINES:])

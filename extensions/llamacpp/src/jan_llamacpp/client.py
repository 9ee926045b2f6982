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
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from jan_core.errors import JanError

from .deaths import death, failed_load, load_ended, start_ended, tail
from .failures import EngineBroken, InvalidGeneration, error_from_worker
from .stream import Piece, PieceStream
from .supervise import Child, ExitReason
from .watchdog import Watchdog
from .worker.frames import FrameError
from .worker.options import LoadOptions
from .worker.protocol import (
    PROTOCOL,
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    Failed,
    ForgetThread,
    FromWorker,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadProgress,
    Pieces,
    Shutdown,
    StatsReply,
    StatsRequest,
    ToWorker,
)
from .worker.reply import ModelInfo, Stats, TokenLogprob, Usage
from .worker.request import GenerateParams, Grammar, Prompt, Sampling

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
]

HELLO_SECONDS = 60.0
CLOSE_SECONDS = 3.0
HANG_SECONDS = 300.0
_WATCH = 0
"""The id of the watchdog's questions."""


class WorkerProcess:
    """A loaded model in a process of its own. Made by `start`."""

    def __init__(self) -> None:
        self.info: ModelInfo
        self._child: Child
        self._next_id = 0
        self._streams: dict[int, PieceStream] = {}
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
        id, stream = self._new_id(), PieceStream(params.n)
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
    def closing(self) -> bool:
        """It was told to end, and hears nothing more; until it has ended it may write what it keeps."""
        return self._reason is None and self._child.expected

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
            raise EngineBroken("the worker process does not answer", log=tail(self._child.log)) from None
        if isinstance(first, ExitReason):
            raise start_ended(first)
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
                    raise failed_load(failed, self._child.log)
                case ExitReason() as reason:
                    raise load_ended(model.name, reason)
                case Hello():
                    raise EngineBroken("the worker process said hello twice")

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


def _absolute(path: Path) -> Path:
    return path.absolute()

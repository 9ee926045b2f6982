"""The worker process: one thread reads the pipe and prepares prompts, one loads the model and decodes.

The reader renders templates and counts tokens itself (both are quick, or limited), so that the decoding
thread does nothing else. It ends the process at once when the pipe ends, also in the middle of a decode:
whoever kills the host, however, leaves no worker behind. A defect in the decoding thread ends the process
too; the host starts a new one.

No text of a request is ever printed or logged.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec.structs import replace

from .frames import FrameDecoder, FrameError
from .protocol import (
    PROTOCOL,
    Cancel,
    Count,
    Counted,
    Embed,
    Failed,
    ForgetThread,
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
    decode_to_worker,
    request_id,
)
from .refusal import Refusal
from .reply import Stats, StepPiece
from .request import GenerateParams, Prompt
from .stdio import Pipe, claim

if TYPE_CHECKING:
    from .embedder import Embedder
    from .images import Picture
    from .scheduler import Scheduler

__all__ = ["main"]

READ_SIZE = 65_536
RETIRE_SECONDS = 2.0
"""To put conversations on the disk in. The host waits a little longer before it kills."""
EXIT_PROTOCOL, EXIT_DEFECT, EXIT_LOAD = 64, 70, 69


def main(engine_dir: str) -> NoReturn:
    """Serve the pipe on fd 0 and 1 until it ends."""
    reader, writer = claim()
    # The reader's Python must not keep the decoding thread waiting: 5 ms is as long as a whole step.
    sys.setswitchinterval(0.0005)
    worker = _Worker(Path(engine_dir), Pipe(writer))
    decoder = FrameDecoder()
    try:
        while data := os.read(reader, READ_SIZE):
            for body in decoder.feed(data):
                worker.receive(body)
    except (FrameError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        print(
            f"worker: the pipe carries no frames of ours ({type(error).__name__})",
            file=sys.stderr,
            flush=True,
        )
        _exit(EXIT_PROTOCOL)
    except OSError:
        pass  # the host is gone
    except BaseException as error:
        _defect(error)
    _exit(0)


class _Worker:
    def __init__(self, engine_dir: Path, pipe: Pipe) -> None:
        self._engine_dir, self._pipe = engine_dir, pipe
        self._stopping = False
        self._engine: Scheduler | Embedder
        self._load: Load | None = None
        self._reported = 0.0

    def receive(self, body: bytes) -> None:
        """Decode one message and act on it; a request of the wrong shape is refused, and only that."""
        try:
            message = decode_to_worker(body)
        except msgspec.ValidationError as error:
            refusal = Refusal("invalid_generation", f"the request has the wrong shape: {error}")
            self._refuse(request_id(body), refusal)
            return
        self.handle(message)

    def handle(self, message: ToWorker) -> None:
        """Act on one message, in the reader's thread."""
        match message:
            case Load():
                if self._load is not None:
                    raise ValueError("a second load")
                self._load = message
                self._pipe.send(Hello(message.key, os.getpid(), PROTOCOL))
                threading.Thread(target=self._serve, args=(message,), name="decode", daemon=True).start()
                # Meanwhile: the chat template will need it, and here it delays nobody.
                with contextlib.suppress(ImportError):
                    importlib.import_module("jinja2.sandbox")
            case Shutdown():
                self._stopping = True
                if hasattr(self, "_engine"):
                    self._engine.retire(RETIRE_SECONDS)
                _exit(0)
            case Generate(id, params):
                try:
                    tokens, pictures = self._read(params.prompt)
                    if params.overflow == "shift" and not params.keep:
                        params = replace(params, keep=self._prompts.lead(params.prompt, tokens))
                    self._engine.submit(id, tokens, self._opened(id, params, tokens), pictures)
                except Refusal as refusal:
                    self._refuse(id, refusal)
            case Embed(id, prompts, normalise):
                self._embed(id, prompts, normalise)
            case Count(id, prompt):
                try:
                    self._pipe.send(Counted(id, len(self._read(prompt)[0])))
                except Refusal as refusal:
                    self._refuse(id, refusal)
            case Cancel(id):
                self._engine.cancel(id)
            case ForgetThread(thread):
                self._engine.forget_thread(thread)
            case StatsRequest(id):  # also before there is an engine: it asks whether anybody is there
                self._pipe.send(StatsReply(id, self._engine.stats() if hasattr(self, "_engine") else Stats()))

    def _opened(self, id: int, params: GenerateParams, tokens: list[int]) -> GenerateParams:
        """Where the prompt ends within the model's thoughts, the answer's text begins with the tag that opened them."""
        if params.grammar is not None:
            self._prompts.prepare(params.grammar)
        opening = self._prompts.opening(params.prompt, tokens)
        if opening:
            self._pipe.send(Pieces([StepPiece(id, opening, 0, 0, index=index) for index in range(params.n)]))
            if params.grammar is not None and params.grammar.reasoning:
                params = replace(params, grammar=replace(params.grammar, opened=True))
        return params

    def _embed(self, id: int, prompts: list[Prompt], normalise: bool) -> None:
        from .embedder import Embedder  # not above: numpy is in the engine's directory

        try:
            if not isinstance(self._engine, Embedder):
                raise Refusal("invalid_generation", "this model is loaded to generate and makes no embeddings")
            self._engine.embed(id, [self._prompts.whole(prompt) for prompt in prompts], normalise)
        except Refusal as refusal:
            self._refuse(id, refusal)

    def _read(self, prompt: Prompt) -> tuple[list[int], dict[int, Picture]]:
        """The tokens and pictures of a prompt, or a Refusal: whatever is strange about one must not end the worker."""
        try:
            return self._prompts.read(prompt)
        except (ValueError, RecursionError) as error:
            kind = type(error).__name__  # not its message: that could hold text of the request
            raise Refusal("invalid_generation", f"no prompt can be made of this ({kind})") from error

    def _refuse(self, id: int, refusal: Refusal) -> None:
        self._pipe.send(Failed(id, refusal.type, refusal.message, refusal.data))

    def _progress(self, done: float) -> bool:
        now = time.monotonic()
        if done >= 1 or now - self._reported >= 0.05:
            self._reported = now
            self._pipe.send(LoadProgress(min(done, 1.0)))
        return not self._stopping

    def _serve(self, load: Load) -> None:
        """The decoding thread: it alone makes the context and decodes (see `context.py`)."""
        try:
            from .engine import make_embedding_engine, make_engine

            try:
                make = make_embedding_engine if load.options.embeddings else make_engine
                info, self._prompts, self._engine = make(
                    self._engine_dir, load.model, load.options, self._pipe.send, self._progress
                )
            except Refusal as refusal:
                self._refuse(0, refusal)
                _exit(EXIT_LOAD)
            self._pipe.send(Loaded(info))
            self._engine.run()
        except OSError:
            _exit(0)  # the host is gone
        except BaseException as error:
            _defect(error)


def _defect(error: BaseException) -> NoReturn:
    # Where, not what: a message could hold text of a request.
    print(f"worker: defect: {type(error).__name__}", file=sys.stderr)
    traceback.print_tb(error.__traceback__, file=sys.stderr)
    _exit(EXIT_DEFECT)


def _exit(status: int) -> NoReturn:
    # Not sys.exit: no waiting for a thread that is deep in a decode, no destructors of native libraries.
    try:
        sys.stderr.flush()
    finally:
        os._exit(status)

"""Embeddings: several texts in one decode, and a vector for each of them.

One thread (the one that made the context) calls `run`; `embed`, `cancel` and `close` may be called from any other.
Requests are served in the order they came, and their texts packed together: a step takes as many as fit. A text that
is longer than a step is read over several, unless its tokens must see each other (`EmbeddingContext.whole`).

Not here: templates, tokens, pipes (`main.py`), how rows become a vector (`pooling.py`), nor sampling: a worker either
generates or embeds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from .embedding_context import EmbeddingContext, Rows
from .frames import MAX_FRAME
from .pooling import gather, pooled
from .protocol import Embedded, Failed
from .refusal import Refusal
from .reply import Stats
from .request import GenerateParams
from .threads import ThreadGovernor

__all__ = ["Embedder"]

MOST_BYTES = MAX_FRAME - (1 << 20)
"""Of one answer's vectors: it has to fit a frame."""

Emit = Callable[[Embedded | Failed], None]


@dataclass(slots=True, eq=False)
class _Request:
    """The texts of one `Embed`. `vectors` is in their order; `left` counts those that are not made yet."""

    id: int
    counts: list[int]
    vectors: list[bytes]
    normalise: bool
    left: int


@dataclass(slots=True, eq=False)
class _Text:
    """A text under way: its first `done` tokens are evaluated, and `parts` is what came of them."""

    request: _Request
    index: int
    tokens: list[int]
    seq: int = -1
    done: int = 0
    parts: list[Rows] = field(default_factory=list)


class Embedder:
    """`emit` is called from the embedder's thread, once for each request."""

    def __init__(
        self, context: EmbeddingContext, *, n_vocab: int, max_queue: int, emit: Emit, governor: ThreadGovernor
    ) -> None:
        self._context, self._n_vocab, self._max_queue = context, n_vocab, max_queue
        self._emit, self._governor = emit, governor
        self._inbox: deque[list[_Text]] = deque()
        self._waiting: deque[_Text] = deque()
        self._active: list[_Text] = []  # they hold sequence numbers, and cells of the cache
        self._suspects: list[_Text] = []
        self._free = list(range(context.n_seq))
        self._requests: dict[int, _Request] = {}
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()
        self._in_decode: frozenset[int] = frozenset()
        self._wake = threading.Event()
        self._closed = False
        self._began = 0.0
        self._stats = Stats()

    # --- any thread -----------------------------------------------------------------------------------------

    def embed(self, id: int, texts: list[list[int]], normalise: bool) -> None:
        """Queue a request for a vector of each text. Raises Refusal: `context_overflow`, `overloaded`,
        `invalid_generation`.
        """
        for index, tokens in enumerate(texts):
            self._check(index, tokens)
        rows = sum(map(len, texts)) if self._context.pooling == "none" else len(texts)
        if rows * self._context.size * 4 > MOST_BYTES:
            raise Refusal("invalid_generation", f"{rows} vectors are too many for one request: ask for fewer at a time")
        if len(self._requests) + len(self._inbox) >= self._max_queue:
            raise Refusal("overloaded", f"{self._max_queue} requests are waiting for this model already")
        if not texts:
            self._emit(Embedded(id, b"", self._context.size, []))
            return
        request = _Request(id, [len(tokens) for tokens in texts], [b""] * len(texts), normalise, len(texts))
        self._inbox.append([_Text(request, index, tokens) for index, tokens in enumerate(texts)])
        self._wake.set()

    def submit(self, id: int, tokens: list[int], params: GenerateParams, pictures: object = None) -> NoReturn:
        """What a scheduler does with a prompt: refused."""
        raise Refusal("invalid_generation", "this model is loaded for embeddings and generates no text")

    def forget_thread(self, thread: str) -> None:
        """No conversation is kept here."""

    def retire(self, seconds: float) -> None:
        """The process is about to end; there is nothing to keep."""

    def cancel(self, id: int) -> None:
        """Drop a request at the next step, or at once when no other is in the running one. Answered by nothing."""
        with self._lock:
            self._cancelled.add(id)
            if self._in_decode and self._in_decode <= self._cancelled:
                self._context.abort()
        self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closed = True
        self._context.abort()
        self._wake.set()

    def stats(self) -> Stats:
        """A snapshot; fields of one moment, give or take a step. `active` and `queued` count texts."""
        current, began = self._stats, self._began
        current.active, current.free_slots = len(self._active), len(self._free)
        current.queued = len(self._waiting) + sum(len(texts) for texts in list(self._inbox))
        current.cells_used = sum(text.done for text in list(self._active))
        current.threads = self._governor.threads
        current.step_age = time.monotonic() - began if began else 0.0
        return current

    def _check(self, index: int, tokens: list[int]) -> None:
        n_ctx = self._context.n_ctx
        if not tokens:
            raise Refusal("invalid_generation", f"text {index} is empty", index=index)
        if min(tokens) < 0 or max(tokens) >= self._n_vocab:
            message = f"text {index} has a token outside 0..{self._n_vocab - 1}"
            raise Refusal("invalid_generation", message, index=index)
        if len(tokens) > n_ctx:
            message = f"text {index} has {len(tokens)} tokens; this model embeds texts of at most {n_ctx}"
            raise Refusal("context_overflow", message, n_prompt=len(tokens), n_ctx=n_ctx, index=index)

    # --- the embedder's thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `close`."""
        while not self._closed:
            self._wake.clear()
            if not self.step() and not self._inbox and not self._closed:
                self._wake.wait()

    def step(self) -> bool:
        """One decode. False when there was nothing to do."""
        self._take_in()
        parts = self._plan()
        if not parts:
            return False
        ids = frozenset(text.request.id for text, _ in parts)
        with self._lock:
            if ids <= self._cancelled:
                return True  # all cancelled since they were taken in
            self._context.resume()
            self._in_decode = ids
        if self._governor.look():
            self._context.set_threads(self._governor.threads)
        self._began = time.monotonic()
        at = 0
        for text, count in parts:
            at = self._context.put(at, text.seq, text.done, text.tokens[text.done : text.done + count])
        status = self._context.decode(at)
        self._stats.decode_seconds += time.monotonic() - self._began
        self._began = 0.0
        with self._lock:
            self._in_decode = frozenset()
        self._stats.steps += 1
        if status == 0:
            self._stats.prefilled += at
            self._collect(parts, at)
        else:
            self._again(parts, status)
        return True

    def _take_in(self) -> None:
        while self._inbox:
            texts = self._inbox.popleft()
            self._requests[texts[0].request.id] = texts[0].request
            self._waiting.extend(texts)
        with self._lock:
            gone, self._cancelled = self._cancelled, set()
        for id in gone:
            if id in self._requests:
                self._drop(self._requests[id])

    def _plan(self) -> list[tuple[_Text, int]]:
        """Which texts take part in this step, and with how many tokens."""
        context = self._context
        if self._suspects:
            suspect = self._suspects[0]
            return [(suspect, min(len(suspect.tokens) - suspect.done, context.n_batch))]
        parts, room = [], context.n_step
        for text in self._active:  # begun in an earlier step
            if room > 0:
                parts.append((text, min(len(text.tokens) - text.done, room)))
                room -= parts[-1][1]
        cells = context.n_cells - sum(len(text.tokens) for text in self._active)
        while self._waiting and self._free and room > 0:
            text = self._waiting[0]
            length = len(text.tokens)
            if length > cells or (context.whole and length > room and parts):
                break
            self._waiting.popleft()
            text.seq = self._free.pop()
            self._active.append(text)
            parts.append((text, length if context.whole else min(length, room)))
            room -= parts[-1][1]
            cells -= length
        return parts

    def _collect(self, parts: list[tuple[_Text, int]], rows: int) -> None:
        """Take from the decode what each text needs of it, and finish those that are complete."""
        context = self._context
        values = None if context.pooling == "rank" else context.rows(rows)
        at = 0
        for text, count in parts:
            last = text.done + count == len(text.tokens)
            if values is None:
                if last:
                    text.parts = [context.score(text.seq).copy()]
            else:
                gather(text.parts, values[at : at + count], context.pooling)
            at += count
            text.done += count
        for text, _ in parts:
            if text.done == len(text.tokens) and text in self._active:  # an earlier one may have ended its request
                self._finish(text)

    def _finish(self, text: _Text) -> None:
        self._leave(text)
        request = text.request
        try:
            vector = pooled(
                text.parts,
                self._context.pooling,
                n_tokens=len(text.tokens),
                normalise=request.normalise,
                index=text.index,
            )
        except Refusal as refusal:
            self._fail(request, refusal)
            return
        request.vectors[text.index] = vector
        request.left -= 1
        if not request.left:
            del self._requests[request.id]
            self._emit(Embedded(request.id, b"".join(request.vectors), self._context.size, request.counts))

    def _again(self, parts: list[tuple[_Text, int]], status: int) -> None:
        """A decode gave nothing: read its texts anew; where it failed, one at a time, to find whose fault it is."""
        for text, _ in parts:
            self._context.clear(text.seq)
            text.done, text.parts = 0, []
        if status == 2:
            return  # aborted for a cancellation
        if len(parts) > 1:
            self._suspects = [text for text, _ in parts]
            return
        self._fail(parts[0][0].request, Refusal("generation_failed", f"llama.cpp could not decode (status {status})"))

    def _leave(self, text: _Text) -> None:
        self._context.clear(text.seq)
        self._free.append(text.seq)
        self._active.remove(text)
        if text in self._suspects:
            self._suspects.remove(text)

    def _drop(self, request: _Request) -> None:
        del self._requests[request.id]
        for text in [text for text in self._active if text.request is request]:
            self._leave(text)
        self._waiting = deque(text for text in self._waiting if text.request is not request)

    def _fail(self, request: _Request, refusal: Refusal) -> None:
        self._drop(request)
        self._emit(Failed(request.id, refusal.type, refusal.message, refusal.data))

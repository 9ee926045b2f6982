"""Continuous batching: sequences join and leave the running batch at any step.

One thread (the one that made the context) calls `run`; `submit`, `cancel` and `close` may be called from any
other. Each step: take new requests in, evaluate one token of each sequence that generates and a chunk of each
prompt that is still being read, draw the next tokens, send what became text.

Room: the cells of the KV cache are promised before they are needed, so a decode never fails for want of room.
Requests are admitted in the order they came. An answer with a limit is promised its whole length; an
open-ended one grows in bits, and when the cells run out the *youngest* sequence gives its cells up and is
taken in again later, with its tokens as the prompt. The oldest always goes on, so everything ends.

Not here: templates, tokens, pipes (`main.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from .context import Context
from .model import Model
from .native import Native
from .protocol import Failed, Finish, GenerateParams, Pieces, Stats, StepPiece, Usage
from .refusal import Refusal
from .sampling import Sampler
from .sequence import Sequence, Slot, common_prefix
from .text import TextStream
from .threads import ThreadGovernor

__all__ = ["Scheduler"]

PREFILL_CHUNK = 256
"""Prompt tokens in one step while others generate: bounds how long their next token waits."""
SHARE_MIN = 16
"""A shorter common prefix is not worth copying from another sequence."""
WAIT_MIN = 64
"""A request waits for another that is just reading the same prefix, when it is at least this long."""

HOLD_SECONDS = 0.004
"""Text may wait this long for more to share its frame, unless it begins or ends an answer. A small model makes a
token in less time than it takes to wake the host for it; with any other this never happens."""

MAX_STOP = 4096
"""Characters of all stop strings of a request: every piece of text is compared with all of them."""

Emit = Callable[[Pieces | Failed], None]


class Scheduler:
    """`emit` is called from the scheduler's thread: at most once a step, and for each failure."""

    def __init__(
        self, native: Native, model: Model, context: Context, *, n_seq: int, n_ctx: int, n_cells: int,
        max_queue: int, emit: Emit, governor: ThreadGovernor,
    ) -> None:  # fmt: skip
        self._native, self._model, self._context = native, model, context
        self._n_ctx, self._n_cells, self._max_queue = n_ctx, n_cells, max_queue
        self._emit, self._governor = emit, governor
        self._slots = [Slot(i) for i in range(n_seq)]
        self._active: list[Slot] = []  # in the order of arrival of their sequences
        self._queue: deque[Sequence] = deque()
        self._inbox: deque[Sequence] = deque()
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()
        self._in_decode: frozenset[int] = frozenset()
        self._wake = threading.Event()
        self._closed = False
        self._pieces: list[StepPiece] = []
        self._urgent = False
        self._flushed = 0.0
        self._stats = Stats()

    # --- any thread -----------------------------------------------------------------------------------------

    def submit(self, id: int, tokens: list[int], params: GenerateParams) -> None:
        """Queue a generation. Raises Refusal: `context_overflow`, `overloaded`, `invalid_generation`."""
        self._check(tokens, params)
        open_ended = params.max_tokens is None
        limit = self._n_ctx if params.max_tokens is None else len(tokens) + params.max_tokens
        deadline = None if params.queue_seconds is None else time.monotonic() + params.queue_seconds
        sequence = Sequence(
            id, list(tokens), limit, open_ended, params, TextStream(params.stop), None, deadline, len(tokens)
        )
        self._inbox.append(sequence)
        self._wake.set()

    def cancel(self, id: int) -> None:
        """End a generation at the next step, or at once when nobody else is in the running batch."""
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
        """A snapshot; fields of one moment, give or take a step."""
        current = self._stats
        current.active, current.queued = len(self._active), len(self._queue) + len(self._inbox)
        current.free_slots = len(self._slots) - current.active
        current.cells_used = sum(len(slot.cache) for slot in self._slots)
        current.threads = self._governor.threads
        return current

    def _check(self, tokens: list[int], params: GenerateParams) -> None:
        n_prompt, n_ctx = len(tokens), self._n_ctx
        if not tokens:
            raise Refusal("invalid_generation", "the prompt is empty")
        if min(tokens) < 0 or max(tokens) >= self._model.n_vocab:
            raise Refusal("invalid_generation", f"the prompt has a token outside 0..{self._model.n_vocab - 1}")
        wanted = 1 if params.max_tokens is None else params.max_tokens
        if wanted < 0:
            raise Refusal("invalid_generation", "max_tokens is negative")
        if n_prompt + wanted > n_ctx:
            raise Refusal(
                "context_overflow",
                f"{n_prompt} tokens of prompt and {wanted} of answer do not fit the context of {n_ctx}",
                n_prompt=n_prompt,
                n_ctx=n_ctx,
                max_tokens=params.max_tokens,
                max_allowed=max(0, n_ctx - n_prompt),
            )
        if sum(map(len, params.stop)) > MAX_STOP:
            raise Refusal("invalid_generation", f"the stop strings have more than {MAX_STOP} characters")
        if len(self._queue) + len(self._inbox) >= self._max_queue:
            raise Refusal("overloaded", f"{self._max_queue} requests are waiting for this model already")

    # --- the scheduler's thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `close`."""
        while not self._closed:
            self._wake.clear()
            if not self.step() and not self._inbox and not self._closed:
                self._wake.wait()

    def step(self) -> bool:
        """One round. False when there was nothing to decode."""
        self._take_in()
        if self._queue:
            self._admit()
        self._make_room()
        busy = bool(self._active)
        if busy:
            self._advance()
        if self._urgent or not busy or time.monotonic() - self._flushed >= HOLD_SECONDS:
            self._flush()
        return busy

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces, self._urgent = self._pieces, [], False
            self._flushed = time.monotonic()
            self._emit(Pieces(pieces))

    def _take_in(self) -> None:
        while self._inbox:
            self._queue.append(self._inbox.popleft())
        if self._cancelled:
            # Ids whose generation is over already are dropped with the rest: there is nothing left of them to
            # end.
            with self._lock:
                gone, self._cancelled = self._cancelled, set()
            for slot in [s for s in self._active if s.sequence is not None and s.sequence.id in gone]:
                self._finish(slot, "cancelled")
            for sequence in [s for s in self._queue if s.id in gone]:
                self._queue.remove(sequence)
                self._report(sequence, "", "cancelled")
        if self._queue:
            now = time.monotonic()
            for sequence in [s for s in self._queue if s.deadline is not None and s.deadline <= now]:
                self._queue.remove(sequence)
                self._fail(sequence, Refusal("overloaded", "the request waited too long for its turn"))

    # --- admission and room ---------------------------------------------------------------------------------

    def _reserved(self) -> int:
        return sum(slot.sequence.reserve() for slot in self._active if slot.sequence is not None)

    def _admit(self) -> None:
        while self._queue:
            sequence = self._queue[0]
            if sequence.n_generated == 0 and sequence.params.max_tokens == 0:
                self._queue.popleft()
                self._report(sequence, "", "length")
                continue
            free = [slot for slot in self._slots if slot.sequence is None]
            if not free or self._reserved() + sequence.reserve() > self._n_cells or self._prefix_coming(sequence):
                return
            self._queue.popleft()
            if sequence.sampler is None:
                try:
                    sequence.sampler = Sampler(self._native, self._model.n_vocab, sequence.params.sampling)
                except Exception as error:
                    self._fail(sequence, _refusal(error))
                    continue
            self._place(sequence, free)

    def _prefix_coming(self, sequence: Sequence) -> bool:
        """Is another sequence just reading a long prefix that this one shares? Then it is better to wait for
        it.
        """
        if not self._model.shareable:
            return False
        best = max((common_prefix(slot.cache, sequence.tokens) for slot in self._slots), default=0)
        for slot in self._active:
            if slot.sequence is not None and len(slot.cache) < slot.sequence.n_prompt:
                shared = min(common_prefix(slot.sequence.tokens, sequence.tokens), len(sequence.tokens) - 1)
                if shared >= WAIT_MIN and shared > len(slot.cache) and shared > best:
                    return True
        return False

    def _place(self, sequence: Sequence, free: list[Slot]) -> None:
        """Give the sequence the slot that leaves the least to compute."""
        source, length = None, 0
        for slot in self._slots if self._model.shareable else free:
            shared = min(common_prefix(slot.cache, sequence.tokens), len(sequence.tokens) - 1)
            if not self._model.shareable and shared < len(slot.cache):
                continue  # A recurrent state can be continued, not cut.
            if shared > length:
                source, length = slot, shared
        others = [slot for slot in free if slot is not source]
        if source is not None and source.sequence is None and (length * 2 >= len(source.cache) or not others):
            slot = source
        else:
            slot = min(others or free, key=lambda s: (bool(s.cache), s.last_used))
            if slot.cache:
                self._forget(slot)
            if source is None or source is slot or length < SHARE_MIN or not self._model.shareable:
                length = 0
            else:
                self._context.share(source.index, slot.index, length)
                slot.cache = source.cache[:length]
        if length < len(slot.cache) and not self._context.truncate(slot.index, length):
            self._forget(slot)
            length = 0
        slot.cache = slot.cache[:length]
        slot.sequence = sequence
        sequence.deadline = None  # It has begun; if it gives its cells up for a while, that is no waiting.
        if sequence.cached is None:
            sequence.cached = length
        self._stats.reused += length
        self._active.append(slot)
        self._active.sort(key=_arrival)

    def _make_room(self) -> None:
        """Keep the promise: what active sequences reserve, and what idle slots remember, fits the cells."""
        while len(self._active) > 1 and self._reserved() > self._n_cells:
            youngest = self._active.pop()
            sequence, youngest.sequence = youngest.sequence, None
            youngest.last_used = time.monotonic()
            if sequence is not None:
                self._queue.appendleft(sequence)
                self._stats.preempted += 1
        room = self._n_cells - self._reserved()
        idle = sorted((s for s in self._slots if s.sequence is None and s.cache), key=lambda s: -s.last_used)
        for slot in idle:
            room -= len(slot.cache)
            if room < 0:
                self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        self._context.clear(slot.index)
        slot.cache = []

    # --- one decode -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        parts = self._plan()
        if any(count > 1 for _, count in parts):
            self._flush()  # reading a prompt takes time
        ids = frozenset(slot.sequence.id for slot, _ in parts if slot.sequence is not None)
        with self._lock:
            if ids <= self._cancelled:
                return  # all cancelled since they were taken in
            self._context.resume()
            self._in_decode = ids
        if self._governor.look():
            self._context.set_threads(self._governor.threads)
        began = time.perf_counter()
        status, rows = self._decode(parts)
        spent = time.perf_counter() - began
        with self._lock:
            self._in_decode = frozenset()
        self._stats.steps += 1
        self._stats.decode_seconds += spent
        if status == 0:
            self._sample_all(parts, rows)
        elif status != 2:
            self._isolate(parts, status)
        # 2, aborted: the part of the batch that went through was taken back; the next step finds the
        # cancellations.

    def _plan(self) -> list[tuple[Slot, int]]:
        """Which slots take part in this step, and with how many tokens. Generating sequences come first."""
        waiting = [(slot, len(slot.sequence.tokens) - len(slot.cache)) for slot in self._active if slot.sequence]
        parts = [(slot, 1) for slot, count in waiting if count == 1]
        room = self._context.n_batch - len(parts)
        if parts:
            room = min(room, PREFILL_CHUNK)
        for slot, count in waiting:
            if count > 1 and room > 0:
                parts.append((slot, min(room, count)))
                room -= parts[-1][1]
        return parts

    def _decode(self, parts: list[tuple[Slot, int]]) -> tuple[int, list[int]]:
        """Evaluate the planned tokens. Returns llama_decode's status and, for each part, the row of its
        logits or -1.

        On anything but success the cache is as it was before.
        """
        at, rows = 0, []
        for slot, count in parts:
            sequence = slot.sequence
            assert sequence is not None
            start = len(slot.cache)
            last = start + count == len(sequence.tokens)
            at = self._context.put(at, slot.index, start, sequence.tokens[start : start + count], last)
            rows.append(at - 1 if last else -1)
        status = self._context.decode(at)
        for slot, count in parts:
            start = len(slot.cache)
            if status == 0:
                assert slot.sequence is not None
                slot.cache += slot.sequence.tokens[start : start + count]
            elif not self._context.truncate(slot.index, start):
                self._forget(slot)
        if status == 0:
            self._stats.prefilled += at - sum(1 for _, count in parts if count == 1)
        return status, rows

    def _isolate(self, parts: list[tuple[Slot, int]], status: int) -> None:
        """A decode failed: find whose fault it is by evaluating each part alone, and end only that one."""
        if len(parts) == 1:
            slot = parts[0][0]
            sequence = self._leave(slot)
            self._forget(slot)
            self._fail(sequence, Refusal("generation_failed", f"llama.cpp could not decode (status {status})"))
            return
        for slot, count in parts:
            part = [(slot, min(count, self._pending(slot)))]
            alone, rows = self._decode(part)
            if alone == 0:
                self._sample_all(part, rows)
            elif alone != 2:
                self._isolate(part, alone)

    @staticmethod
    def _pending(slot: Slot) -> int:
        assert slot.sequence is not None
        return min(len(slot.sequence.tokens) - len(slot.cache), PREFILL_CHUNK)

    # --- tokens and text ------------------------------------------------------------------------------------

    def _sample_all(self, parts: list[tuple[Slot, int]], rows: list[int]) -> None:
        for (slot, _), row in zip(parts, rows, strict=True):
            if row < 0:
                continue
            try:
                self._sample(slot, row)
            except Exception as error:
                self._fail(self._leave(slot), _refusal(error))

    def _sample(self, slot: Slot, row: int) -> None:
        sequence, context = slot.sequence, self._context
        assert sequence is not None
        assert sequence.sampler is not None
        token = sequence.sampler.sample(context.logits(row), context.handle, row, sequence.tokens, sequence.n_prompt)
        self._stats.generated += 1
        sequence.tokens.append(token)
        sequence.pending += 1
        piece = self._model.piece(token)
        if piece is None and not sequence.params.ignore_eos:
            self._finish(slot, "stop", sequence.text.finish())
            return
        text = sequence.text.feed(piece or b"")
        if sequence.text.stopped:
            self._finish(slot, "stop", text)
        elif len(sequence.tokens) >= sequence.limit:
            self._finish(slot, "length", text + sequence.text.finish())
        elif text:
            self._report(sequence, text)

    def _report(self, sequence: Sequence, text: str, finish: Finish | None = None) -> None:
        usage = None
        if finish is not None:
            usage = Usage(sequence.n_prompt, sequence.n_generated, sequence.cached or 0)
            if sequence.sampler is not None:
                sequence.sampler.close()
        self._pieces.append(StepPiece(sequence.id, text, sequence.pending, self._stats.steps, finish, usage))
        self._urgent = self._urgent or finish is not None or not sequence.begun
        sequence.pending, sequence.begun = 0, True

    def _finish(self, slot: Slot, finish: Finish, text: str = "") -> None:
        self._report(self._leave(slot), text, finish)

    def _leave(self, slot: Slot) -> Sequence:
        sequence = slot.sequence
        assert sequence is not None
        slot.sequence, slot.last_used = None, time.monotonic()
        self._active.remove(slot)
        return sequence

    def _fail(self, sequence: Sequence, refusal: Refusal) -> None:
        if sequence.sampler is not None:
            sequence.sampler.close()
        self._flush()
        self._emit(Failed(sequence.id, refusal.type, refusal.message, refusal.data))


def _refusal(error: Exception) -> Refusal:
    """What to tell of an error that one sequence met: a defect, too, must not end the others."""
    if isinstance(error, Refusal):
        return error
    return Refusal("generation_failed", f"an internal error ({type(error).__name__}) ended it")


def _arrival(slot: Slot) -> int:
    return slot.sequence.id if slot.sequence is not None else 0

"""Continuous batching: sequences join and leave the running batch at any step.

One thread (the one that made the context) calls `run`; `submit`, `cancel`, `forget_thread`, `retire` and `stats` may
be called from any other. Each step: take new requests in, evaluate one token of each sequence that generates, with
guesses at those after it (`speculation.py`), and a chunk of each prompt that is still being read; draw the next
tokens; send what became text.

Whose turn it is: `admission.py`. Room, slots and what is remembered: `cache.py`. An open-ended answer may grow until
the cells run out; then the *youngest* sequence gives its cells up and is taken in again later, with its tokens as the
prompt. The oldest always goes on, so everything ends. A batch job also gives its place up to somebody who waits for
an answer now.

Not here: templates, tokens, pipes (`main.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque

from .admission import Queue, urgent
from .cache import Cache
from .context import Context
from .drawing import Drawer
from .fitting import fitted, more_cells
from .images import Picture, Projector
from .model import Model
from .native import Native
from .outbox import Emit, Outbox
from .refusal import Refusal
from .reply import Finish, Stats
from .request import GenerateParams
from .sampling import make_sampler
from .sequence import Sequence, Slot
from .state import StateStore
from .stepping import Part, Stepper
from .text import TextStream
from .threads import ThreadGovernor

__all__ = ["Emit", "Scheduler"]

SAVE_AFTER = 5.0
"""Seconds of quiet before conversations are written to the disk."""
ENDLESS = 16
"""Contexts that an answer without a limit may fill, where the context is shifted."""


class Scheduler:
    """`emit` is called from the scheduler's thread: at most once a step, and for each failure."""

    def __init__(
        self, native: Native, model: Model, context: Context, *, n_seq: int, n_ctx: int, n_cells: int, max_queue: int,
        emit: Emit, governor: ThreadGovernor, states: StateStore | None = None, memory: int = 0, speculate: bool = True,
        projector: Projector | None = None,
    ) -> None:  # fmt: skip
        self._native, self._model, self._context = native, model, context
        self._n_ctx, self._max_queue, self._n_seq = n_ctx, max_queue, n_seq
        self._governor, self._states = governor, states
        speculate = speculate and model.shareable  # else a wrong guess could not be taken back
        self._cache = Cache(
            context, n_seq=n_seq, n_cells=n_cells, shareable=model.shareable, states=states, memory=memory
        )
        self._queue = Queue()
        self._outbox = Outbox(emit)
        self._stats = Stats()
        self._stepper = Stepper(
            context, self._cache, self._stats, n_ctx=n_ctx, speculate=speculate, projector=projector
        )
        self._drawer = Drawer(model, context, self._stats, speculate=speculate)
        self._inbox: deque[list[Sequence]] = deque()
        self._forgotten: deque[tuple[str, int]] = deque()
        self._lock = threading.Lock()
        self._arrivals = 0
        self._cancelled: set[int] = set()
        self._in_decode: frozenset[int] = frozenset()
        self._wake = threading.Event()
        self._closed = False
        self._retired = threading.Event()

    # --- any thread -----------------------------------------------------------------------------------------

    def submit(
        self, id: int, tokens: list[int], params: GenerateParams, pictures: dict[int, Picture] | None = None
    ) -> None:
        """Queue a generation. `pictures`: those that stand in `tokens`, by where they begin.

        Raises Refusal: `context_overflow`, `overloaded`, `invalid_generation`.
        """
        pictures = pictures or {}
        tokens = fitted(
            tokens, params, pictures, n_ctx=self._n_ctx, n_vocab=self._model.n_vocab, shiftable=self._model.shareable
        )
        if len(self._queue) + sum(map(len, tuple(self._inbox))) + params.n > self._max_queue:
            raise Refusal("overloaded", f"{self._max_queue} requests are waiting for this model already")
        now = time.monotonic()
        shifting = params.overflow == "shift" and not pictures
        most = params.max_tokens
        if most is None:
            most = self._n_ctx * ENDLESS if shifting else self._n_ctx - len(tokens) - more_cells(pictures)
        saved = None
        thread = params.thread if not pictures else None  # a state on the disk knows no pictures
        waiting = sum(each.saved is not None for each in self._queue)  # they hold memory while they wait
        if thread is not None and self._states is not None and waiting < 4 and not self._cache.knows(thread):
            saved = self._states.read(thread)
        answers = []
        for index in range(params.n):
            self._arrivals += 1
            answers.append(
                Sequence(
                    id, index, self._arrivals, list(tokens), min(self._n_ctx, len(tokens) + most), most,
                    params.max_tokens is None, params, TextStream(params.stop), now,
                    None if params.queue_seconds is None else now + params.queue_seconds,
                    len(tokens), len(tokens), pictures=pictures, saved=saved if index == 0 else None,
                )
            )  # fmt: skip
        self._inbox.append(answers)  # at once: if one fails, so do the others
        self._wake.set()

    def cancel(self, id: int) -> None:
        """End a generation at the next step, or at once when nobody else is in the running batch."""
        with self._lock:
            self._cancelled.add(id)
            if self._in_decode and self._in_decode <= self._cancelled:
                self._context.abort()
        self._wake.set()

    def forget_thread(self, thread: str) -> None:
        """Delete what is kept of a conversation; on the disk it is gone when this returns."""
        if self._states is not None:
            self._states.forget(thread)
        self._forgotten.append((thread, self._arrivals))
        self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closed = True
        self._context.abort()
        self._wake.set()

    def retire(self, seconds: float) -> None:
        """Close, and give it so long to keep conversations on the disk."""
        self.close()
        if self._states is not None:
            began = time.monotonic()
            if self._retired.wait(seconds):
                self._states.flush(max(0.0, seconds - (time.monotonic() - began)))

    def stats(self) -> Stats:
        """A snapshot; fields of one moment, give or take a step."""
        current, began = self._stats, self._stepper.began
        current.active, current.queued = len(self._cache.active), len(self._queue) + sum(map(len, tuple(self._inbox)))
        current.free_slots = self._n_seq - current.active
        current.cells_used = sum(slot.cells for slot in self._cache.slots)
        current.threads = self._governor.threads
        current.step_age = time.monotonic() - began if began else 0.0
        return current

    # --- the scheduler's thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `close`; then keep what is worth it."""
        try:
            while not self._closed:
                self._wake.clear()
                if not self.step() and not self._inbox and not self._closed:
                    self._rest()
                    if self._governor.begin():
                        self._context.set_threads(self._governor.threads)
            for slot in self._cache.unsaved():
                self._forget_threads()
                self._cache.save(slot)
            self._forget_threads()
        finally:
            self._retired.set()

    def step(self) -> bool:
        """One round. False when there was nothing to decode."""
        self._take_in()
        if self._queue:
            self._admit()
        for sequence in self._cache.make_room():
            self._preempted(sequence)
        busy = bool(self._cache.active)
        if busy:
            self._advance()
        self._outbox.flush(when_due=busy)
        return busy

    def _rest(self) -> None:
        """Nothing to do: wait for it, and after a while put conversations on the disk, one at a time."""
        while not self._wake.wait(SAVE_AFTER if self._cache.unsaved() else None):
            for slot in self._cache.unsaved():
                self._cache.save(slot)
                self._forget_threads()
                if self._wake.is_set():
                    return

    def _take_in(self) -> None:
        # Cancellations first: whoever is cancelled has come before.
        with self._lock:
            gone, self._cancelled = self._cancelled, set()
        while self._inbox:
            for sequence in self._inbox.popleft():
                self._queue.add(sequence)
        self._forget_threads()
        if gone:
            # Ids whose generation is over already are dropped with the rest: there is nothing left to end.
            for slot in [s for s in self._cache.active if s.sequence is not None and s.sequence.id in gone]:
                self._end(self._cache.leave(slot), "cancelled")
            for sequence in self._queue.take(lambda each: each.id in gone):
                self._end(sequence, "cancelled")
        if self._queue:
            now = time.monotonic()
            for sequence in self._queue.take(lambda each: each.deadline is not None and each.deadline <= now):
                self._fail(sequence, Refusal("overloaded", "the request waited too long for its turn"))

    def _forget_threads(self) -> None:
        """What was deleted goes, also where it was being kept when that was said."""
        while self._forgotten:
            thread, arrivals = self._forgotten.popleft()
            self._cache.drop_thread(thread)
            for sequence in self._queue:
                if sequence.params.thread == thread and sequence.arrival <= arrivals:
                    sequence.erased, sequence.saved = True, None
            if self._states is not None:
                self._states.forget(thread)

    # --- admission ------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        now = time.monotonic()
        for sequence in self._queue.in_turn(now):
            if sequence.most == 0:
                self._queue.remove(sequence)
                self._end(sequence, "length")
                continue
            if not self._cache.has_room(sequence) and not self._make_way(sequence, now):
                return
            if self._cache.prefix_coming(sequence):
                continue
            self._queue.remove(sequence)
            if sequence.sampler is None:
                try:
                    sequence.sampler = make_sampler(self._native, self._model, sequence.params, sequence.index)
                except Exception as error:
                    self._fail(sequence, _refusal(error))
                    continue
            length = self._cache.place(sequence)
            sequence.deadline = None  # It has begun; if it gives its cells up for a while, that is no waiting.
            if sequence.cached is None:
                sequence.cached = length
            self._stats.reused += length

    def _make_way(self, sequence: Sequence, now: float) -> bool:
        """Let batch jobs leave, the youngest first, for somebody who waits for an answer. True: there is room now."""
        if not urgent(sequence, now):
            return False
        batch = [s for s in self._cache.active if s.sequence is not None and not urgent(s.sequence, now)]
        kept = [s.sequence.reserve() for s in self._cache.active if s.sequence is not None and s not in batch]
        if len(kept) >= self._n_seq or sum(kept) + sequence.reserve() > self._cache.n_cells:
            return False  # it would be for nothing
        while not self._cache.has_room(sequence):
            self._preempted(self._cache.leave(batch.pop()))
        return True

    def _preempted(self, sequence: Sequence) -> None:
        self._queue.add(sequence)
        self._stats.preempted += 1

    # --- one decode -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if (slot := self._stepper.at_picture()) is not None:
            self._look(slot)
        parts = self._stepper.plan()
        if not parts:
            return
        if any(part.guesses == 0 and len(part.tokens) > 1 for part in parts):
            self._outbox.flush()  # reading a prompt takes time
        ids = frozenset(part.slot.sequence.id for part in parts if part.slot.sequence is not None)
        with self._lock:
            if ids <= self._cancelled:
                return  # all cancelled since they were taken in
            self._context.resume()
            self._in_decode = ids
        if self._governor.look():
            self._context.set_threads(self._governor.threads)
        status, rows = self._stepper.decode(parts)
        with self._lock:
            self._in_decode = frozenset()
        if status == 0:
            self._draw_all(parts, rows)
        elif status != 2:
            self._isolate(parts, status)
        # 2, aborted: the part of the batch that went through was taken back; the next step finds the cancellations.

    def _look(self, slot: Slot) -> None:
        """Evaluate the next picture of a prompt: a step of its own, during which all others wait."""
        assert slot.sequence is not None
        self._outbox.flush()
        with self._lock:
            if slot.sequence.id in self._cancelled:
                return
            self._context.resume()
            self._in_decode = frozenset((slot.sequence.id,))
        status = self._stepper.picture(slot)
        with self._lock:
            self._in_decode = frozenset()
        if status not in (0, 2):
            self._undecodable(slot, status)

    def _undecodable(self, slot: Slot, status: int) -> None:
        sequence = self._cache.leave(slot)
        slot.thread = None  # not to be kept
        self._cache.forget(slot)
        self._fail(sequence, Refusal("generation_failed", f"llama.cpp could not decode (status {status})"))

    def _isolate(self, parts: list[Part], status: int) -> None:
        """A decode failed: find whose fault it is by evaluating each part alone, and end only that one."""
        if len(parts) == 1:
            self._undecodable(parts[0].slot, status)
            return
        for slot, _, _, _ in parts:
            if slot.sequence is None:
                continue  # it went with another answer of its request
            part = self._stepper.alone(slot)
            alone, rows = self._stepper.decode([part])
            if alone == 0:
                self._draw_all([part], rows)
            elif alone != 2:
                self._isolate([part], alone)

    def _draw_all(self, parts: list[Part], rows: list[int]) -> None:
        for part, row in zip(parts, rows, strict=True):
            sequence = part.slot.sequence
            if not part.outputs:
                continue
            if sequence is None:  # it went with another answer of its request
                self._take_back(part)
                continue
            try:
                text, finish = self._drawer.draw(part, row)
            except Exception as error:
                self._take_back(part)
                self._fail(self._cache.leave(part.slot), _refusal(error))
                continue
            if finish is not None:
                self._end(self._cache.leave(part.slot), finish, text)
            elif text:
                self._outbox.piece(sequence, text, self._stats.steps)

    def _take_back(self, part: Part) -> None:
        """Nobody judges the guesses of this part any more: they must not stay in the cells."""
        if part.guesses:
            self._context.truncate(part.slot.index, len(part.slot.cache))

    # --- ends -----------------------------------------------------------------------------------------------

    def _end(self, sequence: Sequence, finish: Finish, text: str = "") -> None:
        self._outbox.piece(sequence, text, self._stats.steps, finish)
        _close(sequence)

    def _fail(self, sequence: Sequence, refusal: Refusal) -> None:
        """A request ends with an error: with it, all of its answers."""
        _close(sequence)
        for slot in [s for s in self._cache.active if s.sequence is not None and s.sequence.id == sequence.id]:
            _close(self._cache.leave(slot))
        for other in self._queue.take(lambda each: each.id == sequence.id):
            _close(other)
        self._outbox.failed(sequence.id, refusal)


def _close(sequence: Sequence) -> None:
    if sequence.sampler is not None:
        sequence.sampler.close()


def _refusal(error: Exception) -> Refusal:
    """What to tell of an error that one sequence met: a defect, too, must not end the others."""
    if isinstance(error, Refusal):
        return error
    return Refusal("generation_failed", f"an internal error ({type(error).__name__}) ended it")

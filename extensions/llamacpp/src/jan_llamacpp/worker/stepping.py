"""One decode: what each slot evaluates in it, and the call itself.

Generating sequences come first, with guesses at the tokens after their last where those pay (`speculation.py`); then
prompts, in chunks that bound how long the others' next token waits: in the same decode, or turn about where llama.cpp
would decode them apart anyway. A picture is a decode of its own.

Not here: who has a slot (`cache.py`), and what is made of the logits (`drawing.py`).
"""

from __future__ import annotations

import time
from itertools import takewhile
from typing import NamedTuple

from .admission import urgent
from .cache import Cache
from .context import Context
from .images import Projector
from .reply import Stats
from .sequence import Sequence, Slot
from .speculation import MOST_DRAFTED, Costs

__all__ = ["LEAST_CHUNK", "Part", "Stepper"]

LEAST_CHUNK, CHUNK_SECONDS, ALONE_SECONDS = 64, 0.4, 4.0
"""The prompt tokens of one step are as many as take this long, while others generate or while nobody does, but not
fewer than these. No rest smaller than these is left for another step."""
ENOUGH = 256
"""Tokens of prompts in a step, from which on no other prompt is begun in it: more are no cheaper together, and what is
read first is answered first."""


class Part(NamedTuple):
    """A slot's share of a step: tokens to evaluate, the last `guesses` of them not drawn yet, and for how many of the
    last logits are wanted.
    """

    slot: Slot
    tokens: list[int]
    guesses: int
    outputs: int


class Stepper:
    """For the scheduler's thread. `stats` counts along."""

    def __init__(
        self, context: Context, cache: Cache, stats: Stats, *, n_ctx: int, speculate: bool, projector: Projector | None
    ) -> None:
        self._context, self._cache, self._stats = context, cache, stats
        self._n_ctx, self._speculate, self._projector = n_ctx, speculate, projector
        self._costs = Costs()
        self._prompt_seconds = 0.0  # for a token of a prompt
        self._read = False  # prompts, in the last step
        self.began = 0.0
        """When the decode that runs now began (monotonic seconds); 0 when none runs."""

    def plan(self) -> list[Part]:
        """What each slot evaluates in this step."""
        parts, prompts = [], []
        for slot in self._cache.active:
            sequence = slot.sequence
            assert sequence is not None
            if len(sequence.tokens) > self._n_ctx:
                self._cache.shift(slot, sequence.params.keep)
            if len(sequence.tokens) - len(slot.cache) == 1:
                parts.append(Part(slot, sequence.tokens[-1:], 0, 1))
            else:
                prompts.append(slot)
        if self._speculate and parts and not prompts:
            self._guess(parts)
        room = self._context.n_batch - len(parts)
        seconds = CHUNK_SECONDS if parts else ALONE_SECONDS
        chunk = int(seconds / self._prompt_seconds) if self._prompt_seconds else LEAST_CHUNK
        most = min(room, max(LEAST_CHUNK, chunk))
        if parts and prompts and self._context.split:
            # Rows of one token and rows of many are decoded apart there: better in two steps.
            parts, prompts = (parts, []) if self._read else ([], prompts)
        self._read = bool(prompts)
        now, read = time.monotonic(), 0
        for slot in sorted(prompts, key=lambda slot: self._turn(slot, now)):
            sequence, start = slot.sequence, len(slot.cache)
            if read < min(most, ENOUGH) and sequence is not None:
                tokens = _chunk(sequence, start, most - read, room - read)
                if not tokens:
                    continue  # a picture is next
                parts.append(Part(slot, tokens, 0, int(start + len(tokens) == len(sequence.tokens))))
                read += len(tokens)
        if self._context.split:
            parts.sort(key=lambda part: part.slot.index)  # neighbours are decoded together only in this order
        return parts

    def _turn(self, slot: Slot, now: float) -> tuple[bool, float]:
        """Which prompt is read first: the one that would be done first if each had been read from when it came. So a
        short one need not wait for a long one, and that not for ever for short ones.
        """
        sequence = slot.sequence
        assert sequence is not None
        left = len(sequence.tokens) - len(slot.cache)
        return not urgent(sequence, now), sequence.since + left * self._prompt_seconds

    def _guess(self, parts: list[Part]) -> None:
        """Add guesses to the parts where that is worth it, most promising ones only."""
        rows = len(parts)
        room = min(MOST_DRAFTED, self._context.n_batch - rows)
        for number, (slot, tokens, _, _) in enumerate(parts):
            sequence = slot.sequence
            assert sequence is not None
            lookup = sequence.lookup
            if lookup is None or sequence.params.speculate is False:
                continue
            left = min(sequence.most - sequence.n_generated, sequence.reserve() - len(sequence.tokens)) - 1
            draft = lookup.guess(min(room, left))
            if sequence.pictures:
                draft = list(takewhile(lambda token: token >= 0, draft))
            if draft and (count := self._costs.worth(rows, len(draft), lookup.rate, lookup.stake)):
                lookup.settle(-self._costs.extra(rows, count))
                parts[number] = Part(slot, tokens + draft[:count], count, count + 1)
                rows, room = rows + count, room - count

    def decode(self, parts: list[Part]) -> tuple[int, list[int]]:
        """Evaluate the planned tokens. Returns llama_decode's status and, for each part, the row of its first logits.

        On anything but success the cache is as it was before. Guesses count as cached only when they are drawn.
        """
        at, rows, read = 0, [], 0
        for slot, tokens, guesses, outputs in parts:
            at = self._context.put(at, slot.index, len(slot.cache), tokens, outputs)
            rows.append(at - outputs)
            if not guesses and len(tokens) > 1:
                read += len(tokens)
        began = self.began = time.monotonic()
        status = self._context.decode(at)
        self.began = 0.0
        spent = time.monotonic() - began
        self._stats.steps += 1
        self._stats.decode_seconds += spent
        for slot, tokens, guesses, _ in parts:
            if status == 0:
                slot.cache += tokens[: len(tokens) - guesses]
            elif not self._context.truncate(slot.index, len(slot.cache)):
                self._cache.forget(slot)
        if status == 0:
            self._stats.prefilled += read
            self._learn(at, read, spent)
        return status, rows

    def _learn(self, rows: int, read: int, spent: float) -> None:
        if not read:
            self._costs.learn(rows, spent)
        elif rows >= LEAST_CHUNK:
            each = spent / rows
            self._prompt_seconds += (each - self._prompt_seconds) * (0.3 if self._prompt_seconds else 1.0)

    def alone(self, slot: Slot) -> Part:
        """A small part of the slot's own, without guesses."""
        sequence, start = slot.sequence, len(slot.cache)
        assert sequence is not None
        tokens = _chunk(sequence, start, LEAST_CHUNK, LEAST_CHUNK)
        return Part(slot, tokens, 0, int(start + len(tokens) == len(sequence.tokens)))

    def at_picture(self) -> Slot | None:
        """The first slot whose prompt goes on with a picture."""
        for slot in self._cache.active:
            if slot.sequence is not None and len(slot.cache) in slot.sequence.pictures:
                return slot
        return None

    def picture(self, slot: Slot) -> int:
        """Evaluate the picture with which the slot's prompt goes on; returns what `decode` does for its status."""
        assert slot.sequence is not None
        assert self._projector is not None
        at = len(slot.cache)
        picture = slot.sequence.pictures[at]
        began = self.began = time.monotonic()
        status = self._projector.evaluate(picture, slot.index, at)
        self.began = 0.0
        self._stats.steps += 1
        self._stats.decode_seconds += time.monotonic() - began
        if status == 0:
            slot.cache += picture.tokens
            if picture.more_cells:
                slot.wide[at] = picture.more_cells
            self._stats.prefilled += picture.n_cells
        elif not self._context.truncate(slot.index, at):
            self._cache.forget(slot)
        return status


def _chunk(sequence: Sequence, start: int, most: int, room: int) -> list[int]:
    """About `most` tokens from `start` on, up to the next picture: none where one stands there."""
    end = min((at for at in sequence.pictures if at >= start), default=len(sequence.tokens))
    if end - start <= min(room, most + LEAST_CHUNK - 1):
        return sequence.tokens[start:end]  # a small rest would cost a step of its own
    return sequence.tokens[start : min(start + most, end)]

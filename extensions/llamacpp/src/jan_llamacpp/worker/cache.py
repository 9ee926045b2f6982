"""The KV cache as the scheduler sees it: which sequence has which slot, what is remembered, and whether there is room.

Room: the cells are promised before they are needed, so a decode never fails for want of room. An answer with a limit
is promised its whole length; an open-ended one grows in bits. What no answer needs remembers old conversations, until
somebody needs the cells.

Prefixes: a new sequence goes where the least is left to compute: on with what a slot remembers, a copy of what
another slot shares with it, or a state from the disk.

Not here: whose turn it is (`admission.py`), and the tokens of the next step (`scheduler.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence as AnySequence

from .context import CELL_STEP, Context
from .images import whole_pictures
from .remembered import Remembered, Remembrance
from .sequence import Sequence, Slot, common_prefix
from .state import SavedState, StateStore

__all__ = ["Cache"]

SHARE_MIN = 16
"""A shorter common prefix is not worth copying from another sequence."""
WAIT_MIN = 64
"""A request waits for another that is just reading the same prefix, when it is at least this long."""
KEEP_MIN = 32
"""Shorter ones are not put out of the way, but forgotten."""
SAVE_MIN = 256
"""Shorter conversations are not kept on the disk: they are read again in no time."""
SAVE_GROWTH = 64
"""Tokens by which one must have grown to be kept anew; also an eighth of it."""


class Cache:
    """`n_cells` cells in `n_seq` slots. `shareable`: the model's state can be cut and shared (it is attention only).

    `states`: where conversations are kept on the disk, if anywhere. `memory`: bytes of those that are put out of the
    way. For the scheduler's thread.
    """

    def __init__(
        self, context: Context, *, n_seq: int, n_cells: int, shareable: bool, states: StateStore | None, memory: int
    ) -> None:
        self._context, self.n_cells, self._shareable = context, n_cells, shareable
        self._states, self._remembered = states, Remembered(memory)
        self.slots = [Slot(i) for i in range(n_seq)]
        self.active: list[Slot] = []
        """Those with a sequence, in the order of arrival."""

    # --- room -----------------------------------------------------------------------------------------------

    def reserved(self) -> int:
        return sum(slot.sequence.reserve() for slot in self.active if slot.sequence is not None)

    def has_room(self, sequence: Sequence) -> bool:
        """Whether there is a slot, and cells, without taking anything from another sequence."""
        return len(self.active) < len(self.slots) and self.reserved() + sequence.reserve() <= self.n_cells

    def make_room(self) -> list[Sequence]:
        """Keep the promise: what active sequences reserve, and what idle slots remember, fits the cells.

        Returns the sequences that had to leave for it, the youngest first; they are to be placed again later.
        """
        left = []
        while len(self.active) > 1 and self.reserved() > self.n_cells:
            left.append(self.leave(self.active[-1]))
        self._evict(0)
        return left

    def _evict(self, extra: int) -> None:
        """Forget idle slots, the longest unused first, until `extra` cells are free beside what is reserved."""
        room = self.n_cells - self.reserved() - extra
        for slot in sorted((s for s in self.slots if s.sequence is None and s.cache), key=lambda s: -s.last_used):
            room -= slot.cells
            if room < 0:
                self.put_away(slot)

    def _tidy(self) -> None:
        """Put idle conversations out of the way of those that go on, where all look over all cells."""
        idle = [slot for slot in self.slots if slot.sequence is None and slot.cache]
        if self._context.split or sum(len(slot.cache) for slot in idle) < CELL_STEP:
            return
        for slot in idle:
            if self._remembered.has_place_for(self._context.state_size(slot.index)):
                self.put_away(slot)

    # --- sequences come and go ------------------------------------------------------------------------------

    def place(self, sequence: Sequence) -> int:
        """Give the sequence the slot that leaves the least to compute; returns how many tokens are there already.

        There must be a slot that is free.
        """
        free = [slot for slot in self.slots if slot.sequence is None]
        source, length = self._nearest(sequence.tokens, free)
        if (slot := self._restore(sequence, free, length)) is not None:
            source, length = slot, self._usable(slot.cache, sequence.tokens)
        others = [slot for slot in free if slot is not source]
        if source is not None and source.sequence is None and (length * 2 >= len(source.cache) or not others):
            slot = source
        else:
            slot = self._vacant(others or free)
            if source is None or source is slot or length < SHARE_MIN or not self._shareable:
                length = 0
            else:
                self._context.share(source.index, slot.index, length)
                slot.cache, slot.kept = source.cache[:length], source.kept
                slot.wide = {at: more for at, more in source.wide.items() if at < length}
                if not self._context.split:
                    slot.shared = source.shared = True
        if slot.thread != sequence.params.thread:
            self.save(slot)  # it is another conversation from here on
            slot.saved = 0
        length = self.cut(slot, length)
        slot.sequence = sequence
        slot.thread = sequence.params.thread
        # Cells that must not be kept make none that may be.
        own = not (sequence.pictures or sequence.shifted or sequence.erased)
        slot.kept = own and (slot.kept or not length)
        slot.saved = min(slot.saved, length)
        self.active.append(slot)
        self.active.sort(key=_arrival)
        self._tidy()
        return length

    def leave(self, slot: Slot) -> Sequence:
        """The slot's sequence goes; its cells stay, as long as nobody needs them."""
        sequence = slot.sequence
        assert sequence is not None
        slot.sequence, slot.last_used = None, time.monotonic()
        self.active.remove(slot)
        if sequence.erased:
            self.forget(slot)
        return sequence

    def prefix_coming(self, sequence: Sequence) -> bool:
        """Is another sequence just reading a long prefix that this one shares? Then it is better to wait for it."""
        if not self._shareable:
            return False
        tokens = sequence.tokens
        best = max((common_prefix(slot.cache, tokens) for slot in self.slots), default=0)
        for slot in self.active:
            if slot.sequence is not None and len(slot.cache) < slot.sequence.prompt_left:
                shared = min(common_prefix(slot.sequence.tokens, tokens), len(tokens) - 1)
                if shared >= WAIT_MIN and shared > len(slot.cache) and shared > best:
                    return True
        return False

    def _vacant(self, free: list[Slot]) -> Slot:
        """One of the free slots, emptied.

        A split cache decodes neighbours together and what is behind a gap apart (llama.cpp's `split_equal`): the active
        slots are to be in one row, if they can.
        """
        taken = {slot.index for slot in self.active}

        def gaps(slot: Slot) -> int:
            row = taken | {slot.index}
            return sum(index - 1 not in row for index in row) if self._context.split else 0

        slot = min(free, key=lambda s: (gaps(s), bool(s.cache), s.last_used))
        if slot.cache:
            self.put_away(slot)
        return slot

    def _nearest(self, tokens: list[int], free: list[Slot]) -> tuple[Slot | None, int]:
        source, length = None, 0
        for slot in self.slots if self._shareable else free:
            shared = self._usable(slot.cache, tokens)
            if shared > length:
                source, length = slot, shared
        return source, length

    def _usable(self, cache: AnySequence[int], tokens: list[int]) -> int:
        """How much of `cache` helps with `tokens`. The last token is always computed: its logits are wanted."""
        shared = whole_pictures(tokens, min(common_prefix(cache, tokens), len(tokens) - 1))
        # A recurrent state can be continued, not cut.
        return shared if self._shareable or shared == len(cache) else 0

    # --- cells ----------------------------------------------------------------------------------------------

    def cut(self, slot: Slot, length: int) -> int:
        """Keep the first `length` tokens; returns how many are left, which is none where it cannot be cut there."""
        if length < len(slot.cache):
            if self._context.truncate(slot.index, length):
                del slot.cache[length:]
                slot.wide = {at: more for at, more in slot.wide.items() if at < length}
            else:
                self.forget(slot)
        return len(slot.cache)

    def put_away(self, slot: Slot) -> None:
        """Free the slot's cells, and remember what was in them."""
        self.save(slot)
        # Not what has pictures (their cells are not one for each position), was shifted, or was deleted.
        wanted = slot.kept and len(slot.cache) >= KEEP_MIN
        if wanted and self._remembered.has_place_for(self._context.state_size(slot.index)):
            data = self._context.state(slot.index)
            if data:
                self._remembered.add(Remembrance(SavedState(list(slot.cache), data), slot.thread, slot.saved))
        self.forget(slot)

    def forget(self, slot: Slot) -> None:
        """Free the slot's cells, and remember nothing of them."""
        self._context.clear(slot.index)
        slot.cache, slot.thread, slot.saved, slot.shared = [], None, 0, False
        slot.wide, slot.kept = {}, True

    def shift(self, slot: Slot, keep: int) -> None:
        """Forget the oldest half of a sequence's tokens after the first `keep`, so that it can go on.

        Where the cells are another sequence's as well, or the model's positions cannot be moved, the rest is read
        again.
        """
        sequence = slot.sequence
        assert sequence is not None
        keep = min(keep, len(sequence.tokens) // 2)
        gap = (len(sequence.tokens) - keep) // 2
        cells = len(slot.cache)
        moved = not slot.shared and cells >= keep + gap and self._context.shift(slot.index, keep, gap)
        del sequence.tokens[keep : keep + gap]
        sequence.prompt_left = max(min(keep, sequence.prompt_left), sequence.prompt_left - gap)
        if sequence.lookup is not None:
            sequence.lookup.forget()
        # A state that was shifted is not what reading its tokens would give: it must not be kept.
        slot.kept, sequence.shifted = False, True
        if moved:
            del slot.cache[keep : keep + gap]
        else:
            self.cut(slot, min(keep, cells))

    # --- the disk -------------------------------------------------------------------------------------------

    def knows(self, thread: str) -> bool:
        """Whether a slot holds this conversation. May be asked from any thread."""
        return any(slot.thread == thread for slot in self.slots) or any(
            each.thread == thread for each in tuple(self._remembered)
        )

    def save(self, slot: Slot) -> None:
        """Keep the slot's conversation on the disk, if it has one that has grown enough to be worth it."""
        if self._states is None or not self._unsaved(slot):
            return
        assert slot.thread is not None
        data = self._context.state(slot.index)
        if data:
            slot.saved = len(slot.cache)
            self._states.write(slot.thread, SavedState(list(slot.cache), data))

    def unsaved(self) -> list[Slot]:
        """Idle slots that `save` would keep."""
        return [slot for slot in self.slots if slot.sequence is None and self._unsaved(slot)]

    def drop_thread(self, thread: str) -> None:
        """A conversation was deleted: forget its cells without keeping them. An answer that runs goes on, and is
        forgotten when it ends.
        """
        self._remembered.drop_thread(thread)
        for slot in self.slots:
            if slot.thread == thread:
                slot.kept = False
                if slot.sequence is None:
                    self.forget(slot)
                else:
                    slot.sequence.erased = True

    def _unsaved(self, slot: Slot) -> bool:
        grown = len(slot.cache) - slot.saved
        return (
            self._states is not None
            and slot.kept
            and slot.thread is not None
            and len(slot.cache) >= SAVE_MIN
            and grown >= max(SAVE_GROWTH, slot.saved // 8)
        )

    def _restore(self, sequence: Sequence, free: list[Slot], length: int) -> Slot | None:
        """Put a state from memory, or from the disk, into a free slot, if that helps more than the `length` tokens at
        hand.
        """

        def usable(tokens: list[int]) -> int:
            return self._usable(tokens, sequence.tokens)

        found = self._remembered.nearest(usable)
        if (saved := sequence.saved) is not None:
            sequence.saved = None
            if found is None or usable(saved.tokens) > usable(found.state.tokens):
                found = Remembrance(saved, sequence.params.thread, len(saved.tokens))
        if found is None or usable(found.state.tokens) < length + SHARE_MIN:
            return None
        tokens = found.state.tokens
        if self.reserved() + max(sequence.reserve(), len(tokens)) > self.n_cells:
            return None
        slot = self._vacant(free)
        self._evict(len(tokens))
        if not self._context.restore(slot.index, found.state.data):
            self._context.clear(slot.index)
            return None
        slot.cache, slot.thread, slot.saved = list(tokens), found.thread, found.saved
        if found in self._remembered and usable(tokens) * 2 >= len(tokens):
            self._remembered.remove(found)  # it goes on; else it was only begun the same way
        return slot


def _arrival(slot: Slot) -> tuple[int, int]:
    return (slot.sequence.arrival, slot.sequence.index) if slot.sequence is not None else (0, 0)

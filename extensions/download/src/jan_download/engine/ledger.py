"""One job's row and pieces in the journal, as its run sees and changes them.

It knows when something was noted; what is worth noting is decided by `transfer`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DiskFull
from ..records import PIECE, Job, Piece
from ..storage.checkpoint import Checkpointer, Superseded
from .pieces import PieceMap
from .trust import Anew

if TYPE_CHECKING:
    from ..journal import Journal
    from ..storage.partial import Partial
    from ..storage.store import Store

__all__ = ["Ledger"]


class Ledger:
    """`job`: as it was last journaled by this run. Every method raises Superseded when somebody else changed it."""

    def __init__(self, job: Job, journal: Journal, store: Store) -> None:
        self.job = job
        self._journal, self._store = journal, store

    def update(self, **changes: Any) -> None:
        """Change fields of the job."""
        self._keep(self._journal.update(self.job.id, self.job.run, **changes))

    def pieces(self, size: int, found: int, length: int) -> PieceMap:
        """What is known of the partial file, of which `found` bytes were there. `length`: of a piece, where no list of
        hashes says so."""
        known = self.job.piece_list
        length = length or (known.length if known else PIECE)
        pieces = self._journal.pieces(self.job.id)
        return PieceMap(size, [each for each in pieces if each.index * length + each.length <= found], length)

    def room_for(self, size: int, reserve: int) -> None:
        """Raises DiskFull when the disk has no room for the rest of the partial file and `reserve` bytes."""
        needed, free = max(0, size - self._store.held(self.job.partial)), self._store.free()
        if needed and needed + reserve > free:
            raise DiskFull(
                f"{needed} bytes are still to come, {reserve} are to stay free, and {free} are free",
                needed=needed + reserve,
                free=free,
            )

    def drop(self, reason: Anew) -> None:
        """Forget, durably, what cannot be proven: pieces whose own hash was checked stay."""
        known = self._journal.pieces(self.job.id)
        kept = [each for each in known if not reason.concerns(each)]
        held, indices = sum(each.length for each in kept), {each.index for each in kept}
        lost = sum(each.length for each in known) - held
        changes: dict[str, Any] = {"offset": held, "discarded": self.job.discarded + lost}
        if not reason.source and not reason.keep:
            changes |= {"validator": "", "source": "", "total": self.job.total if held else 0}
        dropped = [Piece(each.index, 0, tries=each.tries) for each in known if each.index not in indices]
        self._keep(self._journal.checkpoint(self.job.id, self.job.run, dropped, **changes))
        self._journal.add_history(self.job.id, "discarded", {"bytes": lost, "reason": str(reason)})

    def discard(self, size: int) -> None:
        """Throw away all `size` bytes that were fetched, and the partial file."""
        with self._journal.transaction():
            self.update(offset=0, discarded=self.job.discarded + size, validator="", source="")
            self._journal.forget_pieces(self.job.id)
        self._store.discard(self.job.partial)

    @contextlib.contextmanager
    def checkpoints(
        self,
        partial: Partial,
        reserve: int,
        collect: Callable[[], tuple[list[Piece], dict[str, Any]]],
        fail: Callable[[Exception], None],
    ) -> Iterator[None]:
        """Make what is written durable while the block goes on, and once more at its end. `collect` as for
        `Checkpointer`; `fail` is told what went wrong with that, which is raised in the end."""

        def failed() -> None:
            if checkpointer.error is not None:
                fail(checkpointer.error)

        checkpointer = Checkpointer(
            self.job,
            partial,
            journal=self._journal,
            store=self._store,
            reserve=reserve,
            collect=collect,
            report=self._keep,
            failed=failed,
        )
        with checkpointer:
            yield
        if checkpointer.error is not None:
            raise checkpointer.error

    def _keep(self, job: Job | None) -> None:
        if job is None:
            raise Superseded
        self.job = job

"""Who fetches what next: joins the plan of the pieces, the trust in the sources and the pace of the job.

It starts nothing and waits for nothing. The lock of `Fetching` guards it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .pace import Pace
from .pieces import PieceMap
from .plan import Claim, Plan
from .trust import Trust

if TYPE_CHECKING:
    from ..network.body import Body
    from ..source import Source

__all__ = ["Dispatch"]


class Dispatch:
    """Gives out claims. `most`: how many connections there may be."""

    def __init__(self, pieces: PieceMap, trust: Trust, most: int) -> None:
        self.plan = Plan(pieces, time.monotonic)
        self.pace = Pace(most, len(trust.usable()))
        self._pieces, self._trust = pieces, trust
        self._opened: tuple[Source, Body] | None = None

    def begin_with(self, source: Source, body: Body) -> None:
        """Use a response that is there already, from the beginning of the file on."""
        self._opened = source, body

    @property
    def working(self) -> int:
        """How many connections bring something."""
        return sum(claim.got > 0 for claim in self.plan.claims)

    @property
    def idle(self) -> bool:
        """Whether nobody fetches anything."""
        return not self.plan.claims and self._opened is None

    def next(self) -> Claim | None:
        """What one connection more can do now; None when there is nothing, or nobody to ask."""
        if self._opened is not None:
            (begun, body), self._opened = self._opened, None
            claim = self._claim(begun)
            if claim is not None:
                claim.body = body
            return claim
        if self.plan.claims and (self._trust.careful or (self.plan.free() is None and not self.plan.contested())):
            return None
        source = self._trust.pick({claim.source.id for claim in self.plan.claims})
        if source is None:
            return None
        straggler = self.plan.straggler()
        if straggler is not None and source.goodput > 2 * straggler.speed(time.monotonic()):
            self.revoke(straggler)
        claim = self._claim(source)
        if claim is None and source.id not in self._trust.rangeless:
            laggard = self.plan.laggard(source)
            if laggard is not None:
                self.revoke(laggard)
            if laggard is not None or self.plan.split():
                claim = self._claim(source)
        return claim

    def revoke(self, claim: Claim) -> None:
        """Take a claim away from its connection, which may go on with another."""
        if claim.silent(time.monotonic()):
            self._trust.silent(claim.source)
        self.plan.release(claim)
        if claim.body is not None:
            claim.body.interrupt()

    def relieve(self) -> None:
        """Take their claims from connections that are far slower than the others; and when all have fallen silent, from
        those that brought something before: another request may do better, and is made once for each that did not. A
        source that was never tried is better than one with which the end of the file would take long."""
        now = time.monotonic()
        if all(claim.silent(now) for claim in self.plan.claims):
            slow = [claim for claim in self.plan.claims if claim.got]
        else:
            slow = list(self.plan.slow())
        if not slow and self.plan.free() is None and self._trust.untried():
            slow = list(self.plan.tedious())[:1]
            for claim in slow:
                self._trust.avoid(claim.source)
        others = {claim.source.id for claim in self.plan.claims if claim not in slow}
        for claim in slow:
            if claim.source.id not in others and len(self.plan.claims) > len(slow):
                self._trust.avoid(claim.source)
            self.revoke(claim)

    def wrong(self, source: Source, index: int) -> bool:
        """The hash of a piece differs: it is fetched again. Whether the source must not go on. Raises HashMismatch."""
        try:
            banned = self._trust.wrong(source, self._pieces, index)
        finally:
            self._pieces.drop(index, wrong=True)
        for claim in [each for each in self.plan.claims if banned and each.source is source]:
            self.revoke(claim)
        return banned

    def _claim(self, source: Source) -> Claim | None:
        if source.id in self._trust.rangeless:
            return self.plan.sequential(source)
        only = len(self._trust.usable()) == 1
        return self.plan.claim(source, self.pace.target, whole=self._trust.careful, only=only)

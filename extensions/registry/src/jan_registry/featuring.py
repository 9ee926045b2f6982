"""What is recommended to whom: the list's choice, filtered and ranked, and what is seen of that.

The lists are `listing.py`'s, which of them is served `serving.py`'s; what is observed goes to `rollout/` and
`experiments/`, off the request path.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from jan_core import Context
from jan_core.types import ModelContext, ModelRecord

from .catalogue import Catalogue
from .experiments.service import Experiments
from .listing import BuiltinListing, Listing, Nothing, SignedListing
from .rollout.rollout import Rollout
from .rollout.shadow import Answer
from .serving import Served, Serving
from .sqlite import Database

__all__ = ["Featuring", "Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What was recommended, from which list, and by which experiment ("" for none)."""

    models: list[ModelRecord]
    served: Served
    experiment: str = ""
    branch: str = ""


class Featuring:
    """Answers `registry.featured`, from the arm that is served and, for the shadow, from the other one."""

    def __init__(
        self, ctx: Context, catalogue: Catalogue, serving: Serving, experiments: Experiments, local: Database
    ) -> None:
        self._ctx, self._catalogue, self._serving, self._experiments = ctx, catalogue, serving, experiments
        self.rollout: Rollout[ModelContext] = Rollout(
            local,
            serving.keeper,
            self._builtin,
            self._dynamic,
            serving.context(ModelContext()),
            ctx.tasks.start_soon,
            ctx.log,
        )

    async def featured(self, given: ModelContext, limit: int) -> Shown:
        """What is recommended to whom `given` describes, best first; `limit` of it is shown."""
        served = await self._serving.served()
        context = self._serving.context(given)
        chosen = await self._experiments.choose()
        began = time.perf_counter()
        try:
            models = await self._recommended(served.listing, context, chosen.slot if chosen else "")
        except Exception as error:
            micros = int((time.perf_counter() - began) * 1e6)
            self.rollout.served(served.effective, served.listing.arm, micros, context, None, type(error).__name__)
            raise
        micros = int((time.perf_counter() - began) * 1e6)
        answer = self._answer(served.listing, models)
        self.rollout.served(served.effective, served.listing.arm, micros, context, answer)
        self._experiments.shown(chosen, models[:limit])
        return Shown(models, served, chosen.experiment if chosen else "", chosen.branch if chosen else "")

    async def _recommended(self, listing: Listing, context: ModelContext, slot: str = "") -> list[ModelRecord]:
        models = listing.featured(self._serving.facts(context), slot)
        models = await self._ctx.hooks.filter_models(models, context)
        return await self._ctx.hooks.rank_models(models, context)

    async def _builtin(self, context: ModelContext) -> Answer:
        return await self._measured(await self._catalogue.builtin(), context)

    async def _dynamic(self, context: ModelContext) -> Answer:
        listing = await self._catalogue.dynamic() or SignedListing(Nothing(), {}, "cache", "")
        return await self._measured(listing, context)

    async def _measured(self, listing: Listing, context: ModelContext) -> Answer:
        """As `featured` measures it: finding out whether there is a newer list is not part of answering from one."""
        began = time.perf_counter()
        models = await self._recommended(listing, context)
        return self._answer(listing, models, int((time.perf_counter() - began) * 1e6))

    def _answer(self, listing: Listing, models: list[ModelRecord], micros: int = -1) -> Answer:
        provenance = listing.provenance(time.time())
        age = -1 if provenance.age is None else int(provenance.age)
        known = listing.models if isinstance(listing, BuiltinListing) else ()
        return Answer(models, listing.get, known, provenance.seq, age, micros)

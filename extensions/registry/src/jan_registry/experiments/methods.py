"""The methods about experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jan_core import Empty, StorageError, method

from .shapes import ExperimentId, ExperimentsQuery, ExperimentsReport, JoinExperiment

if TYPE_CHECKING:
    from .service import Experiments

__all__ = ["ExperimentMethods"]


class ExperimentMethods:
    """Handlers. `experiments` is set when the extension is activated, before any call can come."""

    experiments: Experiments

    @method("registry.experiments")
    async def report(self, params: ExperimentsQuery) -> ExperimentsReport:
        """How experiments on what is featured stand, here and, with what other machines exported, altogether. Nothing
        is sent, and nobody is asked."""
        return await self.experiments.report(params)

    @method("registry.join", errors=[StorageError])
    async def join(self, params: JoinExperiment) -> Empty:
        """Take part in an experiment by choice, and be shown what one of its branches shows. It does not count then."""
        await self.experiments.join(params.experiment, params.branch)
        return Empty()

    @method("registry.leave", errors=[StorageError])
    async def leave(self, params: ExperimentId) -> Empty:
        """Leave an experiment for good. The setting `experiments` leaves all of them."""
        await self.experiments.leave(params.experiment)
        return Empty()

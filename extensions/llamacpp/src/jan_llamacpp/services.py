"""What the methods of this extension work with: store, engine selection, installer and pool, wired together.

Made when the extension is activated, closed when it retires. It has no methods of the table and no hooks
itself.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio.to_thread

from jan_core import Context, Progress

from .client import LoadOptions, WorkerProcess
from .engines.installer import EngineInstaller
from .engines.progress import OnProgress
from .engines.progress import Progress as InstallProgress
from .gguf import InvalidModelFile
from .pool import ModelPool
from .selection import EngineSelection
from .settings import LlamaCppSettings
from .store import EMBEDDED_MODEL, ModelStore

__all__ = ["Services", "install_report"]


class Services:
    """Of one activation. `engine_of` names the engine build a loaded model runs on."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.engines = ctx.data_dir / "engines"
        self.store = ModelStore(ctx.data_dir / "models")
        self.selection = EngineSelection(ctx, self.engines)
        self.engine_of: dict[str, str] = {}
        self.pool = ModelPool(
            self._start,
            max_loaded=lambda: self.settings.max_loaded,
            queue_seconds=lambda: self.settings.queue_seconds,
            on_change=self._changed,
        )

    @property
    def settings(self) -> LlamaCppSettings:
        settings: LlamaCppSettings = self.ctx.settings
        return settings

    def installer(self) -> EngineInstaller:
        """An installer as the settings want it now."""
        settings = self.settings
        return EngineInstaller(
            self.engines,
            check_model=EMBEDDED_MODEL if EMBEDDED_MODEL.is_file() else None,
            offline=settings.offline,
            wheels=settings.prebuilt_wheels,
        )

    async def resolve(self, model: str) -> str:
        """The id of the model a request names (empty: the default one). Raises ModelNotFound."""
        id = model or self.settings.default_model
        if self.pool.state(id)[0] != "loaded":
            await anyio.to_thread.run_sync(self.store.get, id)
        return id

    def use(self, id: str, report: Progress) -> AbstractAsyncContextManager[WorkerProcess]:
        """The worker of a model, loaded where it is not; see `ModelPool.use`."""
        return self.pool.use(id, report)

    async def _start(self, id: str, report: Progress) -> WorkerProcess:
        model = await anyio.to_thread.run_sync(self.store.get, id)
        if model.error:
            raise InvalidModelFile(f"{id}: {model.error}", path=model.path, reason="changed")
        await anyio.to_thread.run_sync(self.store.inspect, id)  # before native code sees the file
        selected = await self.selection.select()
        engine = await self.installer().ensure(selected.build, install_report(report))
        settings = self.settings
        options = LoadOptions(n_ctx=settings.n_ctx, n_seq=settings.parallel, threads=settings.threads)
        message = f"loading {id}"
        report(message, 0.0, 1.0)
        worker = await WorkerProcess.start(
            engine.path, Path(model.path), options, lambda fraction: report(message, fraction, 1.0)
        )
        self.engine_of[id] = engine.id
        return worker

    def _changed(self, id: str) -> None:
        state, error = self.pool.state(id)
        if state != "loaded":
            self.engine_of.pop(id, None)
        self.ctx.emit("models.changed", {"id": id, "state": state, "error": error}, key=f"models.changed/{id}")


def install_report(report: Progress) -> OnProgress:
    """An installer's progress as a call's."""

    def show(progress: InstallProgress) -> None:
        report(progress.message, progress.done if progress.total else None, progress.total)

    return show

"""What the methods of this extension work with: store, engine selection, installer and pool, wired together.

Made when the extension is activated, closed when it retires; each part is made when it is first needed, so that the
host starts without them. It has no methods of the table and no hooks itself.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from jan_core import Call, Context, Progress

from .embedded import EMBEDDED_MODEL
from .settings import LlamaCppSettings

if TYPE_CHECKING:
    from .client import WorkerProcess
    from .engines.installer import EngineInstaller
    from .engines.progress import OnProgress
    from .engines.progress import Progress as InstallProgress
    from .pool import ModelPool
    from .routing import Router
    from .selection import EngineSelection
    from .store import ModelStore

__all__ = ["Services", "install_report", "report_to"]


class Services:
    """Of one activation. `engine_of` names the engine build a loaded model runs on."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.engines = ctx.data_dir / "engines"
        self.engine_of: dict[str, str] = {}

    @property
    def settings(self) -> LlamaCppSettings:
        settings: LlamaCppSettings = self.ctx.settings
        return settings

    @cached_property
    def store(self) -> ModelStore:
        from .store import ModelStore

        store = ModelStore(self.ctx.data_dir / "models")
        self.ctx.tasks.start_soon(anyio.to_thread.run_sync, store.sweep)
        return store

    @cached_property
    def selection(self) -> EngineSelection:
        from .selection import EngineSelection

        return EngineSelection(self.ctx, self.engines)

    @cached_property
    def pool(self) -> ModelPool:
        from .pool import ModelPool

        pool = ModelPool(
            self._start,
            max_loaded=lambda: self.settings.max_loaded,
            queue_seconds=lambda: self.settings.queue_seconds,
            idle_seconds=lambda: self.settings.idle_minutes * 60,
            pinned=lambda: self.settings.pinned,
            on_change=self._changed,
        )
        self.ctx.on_dispose(pool.close)
        return pool

    @cached_property
    def router(self) -> Router:
        from .routing import Router

        return Router(self)

    def reconsider(self) -> None:
        """Settings or engines are others now: what failed may work, and there may be more room."""
        if "pool" in self.__dict__:
            self.pool.forget_all()
            self.pool.reconsider()

    def installer(self) -> EngineInstaller:
        """An installer as the settings want it now."""
        from .engines.installer import EngineInstaller

        settings = self.settings
        return EngineInstaller(
            self.engines,
            check_model=EMBEDDED_MODEL if EMBEDDED_MODEL.is_file() else None,
            offline=settings.policy == "offline",
            wheels=settings.prebuilt_wheels,
        )

    async def resolve(self, model: str) -> str:
        """The id of the model a request names (empty: the default one). Raises ModelNotFound."""
        id = model or self.settings.default_model
        if self.pool.state(id)[0] != "loaded":
            await anyio.to_thread.run_sync(self.store.get, id)
        return id

    async def _start(self, id: str, report: Progress) -> WorkerProcess:
        from .client import LoadOptions, WorkerProcess
        from .errors import InvalidModelFile

        model = await anyio.to_thread.run_sync(self.store.get, id)
        if model.error:
            raise InvalidModelFile(f"{id}: {model.error}", path=model.path, reason="changed")
        await anyio.to_thread.run_sync(self.store.inspect, id)  # before native code sees the file
        selected = await self.selection.select()
        engine = await self.installer().ensure(selected.build, install_report(report))
        settings = self.settings
        options = LoadOptions(
            n_ctx=settings.n_ctx, n_seq=settings.parallel, threads=settings.threads, speculate=settings.speculate
        )
        message = f"loading {id}"
        report(message, 0.0, 1.0)
        worker = await WorkerProcess.start(
            engine.path,
            Path(model.path),
            options,
            lambda fraction: report(message, fraction, 1.0),
            hang_seconds=settings.hang_seconds,
        )
        self.engine_of[id] = engine.id
        return worker

    def _changed(self, id: str) -> None:
        state, error = self.pool.state(id)
        if state != "loaded":
            self.engine_of.pop(id, None)
        self.ctx.emit("models.changed", {"id": id, "state": state, "error": error}, key=f"models.changed/{id}")


def report_to(call: Call) -> Progress:
    """A call's progress as a function."""
    return lambda message, done, total: call.progress(message, done=done, total=total)


def install_report(report: Progress) -> OnProgress:
    """An installer's progress as a call's."""

    def show(progress: InstallProgress) -> None:
        report(progress.message, progress.done if progress.total else None, progress.total)

    return show

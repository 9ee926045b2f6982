"""What the methods of this extension work with: store, engine selection, installer and pool, wired together.

Made when the extension is activated, closed when it retires; each part is made when it is first needed, so that the
host starts without them. It has no methods of the table and no hooks itself.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio.to_thread
import msgspec

from jan_core import Call, Context, Progress

from .embedded import EMBEDDED_MODEL
from .errors import ModelBusy
from .model_shapes import ModelOptions
from .settings import LlamaCppSettings
from .variants import embedding_id, embeds_only, has_head, model_of, ranks, with_variant

if TYPE_CHECKING:
    from jan_core.types import Hardware

    from .client import WorkerProcess
    from .engine_use import EngineUse
    from .engines.installer import EngineInstaller
    from .engines.progress import OnProgress
    from .engines.progress import Progress as InstallProgress
    from .engines.record import InstalledEngine
    from .memory.fit import Fit
    from .memory.room import Room
    from .pool import ModelPool
    from .routing import Router
    from .selection import EngineSelection
    from .states import StateFolders
    from .store import ModelStore

__all__ = ["Services", "install_report", "report_to"]

_STATES = ("loaded", "loading", "failed", "available")


class Services:
    """Of one activation. `engine_of` names the engine build a loaded model runs on, `fits` tells what it was estimated
    to take; `asked`: the options `models.load` gave for a model, and whether to load it whatever it takes.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.engines = ctx.data_dir / "engines"
        self.engine_of: dict[str, str] = {}
        self.asked: dict[str, tuple[ModelOptions, bool]] = {}
        self.fits: dict[str, Fit] = {}

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
    def states(self) -> StateFolders:
        from .states import StateFolders

        return StateFolders(self.ctx.data_dir / "states")

    @cached_property
    def selection(self) -> EngineSelection:
        from .selection import EngineSelection

        return EngineSelection(self.ctx, self.engines, self.engine_of.values)

    @cached_property
    def pool(self) -> ModelPool:
        from .pool import ModelPool

        pool = ModelPool(
            self._start,
            max_loaded=lambda: self.settings.max_loaded,
            queue_seconds=lambda: self.settings.queue_seconds,
            idle_seconds=lambda: self.settings.idle_minutes * 60,
            pinned=lambda id: model_of(id) in self.settings.pinned,
            on_change=self._changed,
        )
        self.ctx.on_dispose(pool.close)
        return pool

    @cached_property
    def room(self) -> Room:
        from .memory.room import Room

        def detected() -> Hardware:
            from .engines.hardware import detect

            return detect()

        return Room(
            detected,
            loading=lambda: {id: fit for id, fit in self.fits.items() if self.pool.state(id)[0] == "loading"},
            loaded=lambda: [fit for id, fit in self.fits.items() if self.pool.state(id)[0] == "loaded"],
            idle=lambda: [self.fits[id] for id in self._idle() if id in self.fits],
            give_up_one=self._give_up_one,
        )

    @cached_property
    def router(self) -> Router:
        from .routing import Router

        return Router(self)

    def reconsider(self) -> None:
        """Settings or engines are others now: what failed may work, and there may be more room."""
        if "pool" in self.__dict__:
            self.pool.forget_all()
            self.pool.reconsider()
        self.drop_unwanted_states()

    def drop_unwanted_states(self) -> None:
        """Delete what is kept of conversations, where that is not wanted (any more)."""
        if not self.settings.keep_states:
            self.ctx.tasks.start_soon(anyio.to_thread.run_sync, self.states.forget_all)

    @cached_property
    def engine_use(self) -> EngineUse:
        from .engine_use import EngineUse

        return EngineUse(self.engines, self.selection, self.installer, self.engine_changed, self.ctx.log)

    def engine_changed(self, id: str, installed: bool, reason: str = "") -> None:
        """Tell that a build was installed or removed, or with a reason, set aside or not used this time."""
        if reason:
            self.ctx.log.warning("the engine %s is not used: %s", id, reason)
        self.ctx.emit("engines.changed", {"id": id, "installed": installed, "reason": reason})

    def forget_thread(self, thread: str) -> None:
        """A conversation, or a part of it, was deleted: so is what is kept of it. For the event loop's thread."""
        for worker in self.pool.loaded().values():
            if worker.closing:  # and perhaps writing just that
                worker.exited.add_done_callback(lambda _: self.states.forget_thread(thread))
            else:
                worker.forget_thread(thread)
        self.ctx.tasks.start_soon(anyio.to_thread.run_sync, self.states.forget_thread, thread)

    def installer(self) -> EngineInstaller:
        """An installer as the settings want it now."""
        from .engines.installer import EngineInstaller

        settings = self.settings
        return EngineInstaller(
            self.engines,
            check_model=EMBEDDED_MODEL if EMBEDDED_MODEL.is_file() else None,
            offline=settings.policy == "offline",
            wheels=settings.prebuilt_wheels,
            sources=settings.compile_engines,
        )

    async def resolve(self, model: str, *, to_embed: bool = False) -> str:
        """The id of the model a request names (empty: the default one). Raises ModelNotFound, and InvalidGeneration
        for a model that only embeds, unless that is wanted.
        """
        id = model or self.settings.default_model
        if self.pool.state(id)[0] != "loaded":
            await anyio.to_thread.run_sync(self.store.get, id)
            if not to_embed and await self.worker_of(id) != id:
                from .failures import InvalidGeneration

                message = f"{id} makes embeddings and does not generate text; use embeddings.create"
                raise InvalidGeneration(message, model=id)
        return id

    async def worker_of(self, id: str) -> str:
        """The worker that a model is loaded as when nothing more is said. Raises ModelNotFound, InvalidModelFile."""
        if self.pool.state(id)[0] == "loaded":
            return id
        info = await anyio.to_thread.run_sync(self.store.inspect, id)
        return embedding_id(id) if embeds_only(info) else id

    def workers_of(self, id: str) -> list[str]:
        """The model's workers that there are, were, or could not be started."""
        return [each for each in self.pool.known() if model_of(each) == id]

    def state(self, id: str) -> tuple[Literal["available", "loading", "loaded", "failed"], str]:
        """A model's state over all its workers: the most that one of them is."""
        states = [self.pool.state(each) for each in self.workers_of(id)]
        return min(states, key=lambda state: _STATES.index(state[0]), default=("available", ""))

    async def unload(self, id: str, *, force: bool = False) -> bool:
        """Unload all workers of a model, or none; False: there was none. Raises ModelBusy."""
        return await self.pool.unload(*self.workers_of(id), force=force)

    def forget(self, id: str) -> None:
        """Forget what went wrong with a model."""
        for each in self.workers_of(id):
            self.pool.forget(each)

    async def _start(self, id: str, report: Progress) -> WorkerProcess:
        from .client import LoadOptions, WorkerProcess
        from .errors import InvalidModelFile
        from .loading import check_fit, merged, plan

        name = model_of(id)
        model = await anyio.to_thread.run_sync(self.store.get, name)
        if model.error:
            raise InvalidModelFile(f"{name}: {model.error}", path=model.path, reason="changed")
        info = await anyio.to_thread.run_sync(self.store.inspect, name)  # before native code sees the file
        settings = self.settings
        base = with_variant(LoadOptions(), id)
        if base.embeddings and base.pooling is None and ranks(info) and not has_head(info):
            message = (
                f"{name} is to score texts (pooling rank), but has no classification head; ask for another pooling"
            )
            raise InvalidModelFile(message, path=model.path, reason="missing_tensors")
        if settings.keep_states:
            kept = str(self.states.of(name))
            base = msgspec.structs.replace(base, state_dir=kept, state_bytes=int(settings.state_gib * 2**30))
        given, force = self.asked.get(name, (ModelOptions(), False))
        asked = merged(given, model)
        await self._admit(name, [use.id for use in asked.adapters or []])
        message = f"loading {name}"

        async def start(engine: InstalledEngine) -> WorkerProcess:
            work = partial(plan, model, info, asked, settings, variant=engine.record.variant, base=base)
            found = self.fits[id] = await self.room.find(id, work, report, force=force)
            if not force:
                check_fit(name, found)
            report(message, 0.0, 1.0)
            return await WorkerProcess.start(
                engine.path,
                Path(model.path),
                found.options,
                lambda fraction: report(message, fraction, 1.0),
                hang_seconds=settings.hang_seconds,
            )

        worker, engine, said = await self.engine_use.run(id, install_report(report), start, WorkerProcess.kill)
        self.engine_of[id] = engine.id
        self.fits[id] = msgspec.structs.replace(self.fits[id], reasons=[*said, *self.fits[id].reasons])
        return worker

    async def _admit(self, name: str, adapters: list[str]) -> None:
        """Ask for votes on a load. Raises ModelRefused with the first refusal's reason."""
        from .errors import ModelRefused

        load = await anyio.to_thread.run_sync(self.store.load_of, name, adapters)
        for outcome in (await self.ctx.hooks.admit_load(load)).outcomes:
            if outcome.value is not None and not outcome.value.allowed:
                reason = outcome.value.reason or "no reason given"
                message = f"{name} is not loaded: refused by {outcome.extension}: {reason}"
                raise ModelRefused(message, extension=outcome.extension, model=name)

    def _idle(self) -> list[str]:
        """The workers that may be unloaded for another, the least recently used first."""
        return [id for id, worker in self.pool.loaded().items() if not worker.busy and not self.pool.is_pinned(id)]

    async def _give_up_one(self) -> bool:
        """Unload one that is idle, for its memory; False: there is none."""
        for id in self._idle():
            with suppress(ModelBusy):
                return await self.pool.unload(id)
        return False

    def _changed(self, id: str) -> None:
        if self.pool.state(id)[0] != "loaded":
            self.engine_of.pop(id, None)
            self.fits.pop(id, None)
            self.drop_unwanted_states()  # it was loaded when they were still wanted, perhaps
        self.room.changed()
        name = model_of(id)
        state, error = self.state(name)
        self.ctx.emit("models.changed", {"id": name, "state": state, "error": error}, key=f"models.changed/{name}")


def report_to(call: Call) -> Progress:
    """A call's progress as a function."""
    return lambda message, done, total: call.progress(message, done=done, total=total)


def install_report(report: Progress) -> OnProgress:
    """An installer's progress as a call's."""

    def show(progress: InstallProgress) -> None:
        report(progress.message, progress.done if progress.total else None, progress.total)

    return show

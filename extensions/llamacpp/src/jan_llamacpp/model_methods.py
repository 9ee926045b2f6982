"""The methods `models.*`: what is here, taking files in, and what is in memory."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import msgspec

from jan_core import Call, Empty, JanError, StorageError, method
from jan_core.types import InstalledModel

from .engines.errors import EngineInstallFailed, EngineNotFound
from .errors import (
    InvalidModelFile,
    InvalidModelId,
    ModelBusy,
    ModelExists,
    ModelNotFound,
    ModelReadOnly,
    ModelRefused,
    NoUsableEngine,
)
from .failures import EngineBroken, ModelLoadFailed, OutOfMemory, WorkerDied, WorkerHung
from .model_shapes import (
    ConfigureModel,
    DeleteModel,
    EstimateModel,
    ImportModel,
    InspectedModel,
    LoadedModel,
    LoadModel,
    ModelChanged,
    ModelEstimate,
    ModelId,
    ModelList,
    ModelOptions,
    UnloadModel,
)
from .services import Services, report_to

if TYPE_CHECKING:
    from .gguf import GGUFInfo

__all__ = ["LOAD_ERRORS", "ModelMethods"]

LOAD_ERRORS = [
    ModelNotFound,
    InvalidModelFile,
    ModelLoadFailed,
    EngineInstallFailed,
    EngineBroken,
    ModelRefused,
    NoUsableEngine,
    WorkerDied,
    WorkerHung,
    OutOfMemory,
]
"""What a request that needs a loaded model may end with."""

IMPORT_ERRORS = [InvalidModelFile, InvalidModelId, ModelExists, ModelReadOnly, ModelNotFound, StorageError]
"""What taking in a file may end with."""

_SHOWN_TEXT = 4096


class ModelMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @method("models.list", events={"models.changed": ModelChanged})
    async def list(self, params: Empty) -> ModelList:
        """List the models on this machine with their state; the embedded one is first."""
        models = await anyio.to_thread.run_sync(self.services.store.list)
        return ModelList([self._with_state(model) for model in models])

    @method("models.inspect", errors=[ModelNotFound, InvalidModelFile])
    async def inspect(self, params: ModelId) -> InspectedModel:
        """Read and check a model's file now, and say what its header says."""
        model = await anyio.to_thread.run_sync(self.services.store.get, params.id)
        info = await anyio.to_thread.run_sync(self.services.store.inspect, params.id)
        return InspectedModel(
            model=self._with_state(model),
            version=info.version,
            embedding_length=info.embedding_length,
            block_count=info.block_count,
            tokenizer=info.tokenizer,
            n_vocab=info.n_vocab,
            n_tensors=info.n_tensors,
            has_chat_template=info.has_chat_template,
            metadata=_shown(info),
        )

    @method("models.import", errors=IMPORT_ERRORS)
    async def import_(self, params: ImportModel, call: Call) -> InstalledModel:
        """Take in a model of this machine, with all its files, or a LoRA adapter for an installed one. The files stay
        where they are; when this answers, the model is installed.
        """
        path = _absolute(params.path)

        def show(done: int, total: int) -> None:
            call.progress(f"copying {path.name}", done=done, total=total)

        store = self.services.store
        how: dict[str, Any] = {"id": params.id or None, "share": not params.copy, "hashes": params.hashes}
        if params.base:
            model = await store.take_in_adapter(path, params.base, **how, on_bytes=show)
            return self._with_state(model)
        projector = _absolute(params.projector) if params.projector else None
        find = params.projector is None
        model = await store.take_in(
            path,
            **how,
            origin=params.origin,
            unchecked=params.unchecked,
            projector=projector,
            find_projector=find,
            on_bytes=show,
        )
        self.services.forget(model.id)
        self._changed(model.id, "available")
        return model

    @method("models.estimate", errors=[ModelNotFound, InvalidModelFile])
    async def estimate(self, params: EstimateModel) -> ModelEstimate:
        """What a model would take of the memory that is free now, in parts, and how it would be loaded. From its
        header: nothing is loaded, and no engine needs to be installed.
        """
        from .engines.hardware import detect
        from .loading import estimate, merged

        services = self.services
        model = await anyio.to_thread.run_sync(services.store.get, params.id)
        info = await anyio.to_thread.run_sync(services.store.inspect, params.id)
        try:
            selected = await services.selection.select()
            hardware, variant = selected.hardware, selected.build.variant
        except (NoUsableEngine, EngineNotFound):
            hardware, variant = await anyio.to_thread.run_sync(detect), "cpu"
        asked = merged(_options_of(params), model)
        hardware = services.room.beside_loaded(hardware)
        work = partial(estimate, model, info, asked, services.settings, hardware, variant=variant)
        return await anyio.to_thread.run_sync(work)

    @method("models.configure", errors=[ModelNotFound, ModelReadOnly, StorageError])
    async def configure(self, params: ConfigureModel) -> InstalledModel:
        """Keep what a model is loaded with from now on, where a load does not say otherwise. One that is loaded stays
        as it is.
        """
        from .loading import check_adapters

        store, options = self.services.store, msgspec.to_builtins(params.options)
        check_adapters(await anyio.to_thread.run_sync(store.get, params.id), params.options)
        model = await anyio.to_thread.run_sync(store.configure, params.id, options)
        self.services.forget(params.id)
        return self._with_state(model)

    @method("models.load", errors=[*LOAD_ERRORS, ModelBusy])
    async def load(self, params: LoadModel, call: Call) -> LoadedModel:
        """Load a model now rather than at its first request, also when it failed a short time ago, or died too often.

        With other options than those it is loaded with it is loaded anew, unless it is answering. It stays until it is
        unloaded, idle for longer than the settings allow, or the least recently used one when another needs room; with
        `pin` until it is unloaded.
        """
        from .loading import device_memory

        services = self.services
        id = await services.resolve(params.id, to_embed=True)
        loaded = await services.worker_of(id)
        asked = _options_of(params)
        others = asked not in (ModelOptions(), services.asked.get(id, (ModelOptions(),))[0])
        if others and services.pool.state(loaded)[0] == "loading":
            with suppress(JanError):  # whatever comes of it: these options were not part of it
                await services.pool.load(loaded, report_to(call))
        if others and services.pool.state(loaded)[0] == "loaded":
            await services.unload(id)
        if services.pool.state(loaded)[0] != "loaded":
            services.asked[id] = asked, params.force
        try:
            worker = await services.pool.load(loaded, report_to(call), pin=params.pin)
        except BaseException as failure:  # a cancelled load, too, says nothing of the next one
            services.asked.pop(id, None)
            if isinstance(failure, JanError) and asked != ModelOptions():
                # It failed with these options: that says nothing of the model as it is.
                services.forget(id)
            raise
        fit = services.fits.get(loaded)
        return LoadedModel(
            id,
            services.engine_of.get(loaded, ""),
            worker.info,
            services.pool.is_pinned(loaded),
            device_memory(fit) if fit else [],
            fit.reasons if fit else [],
        )

    @method("models.unload", errors=[ModelNotFound, ModelBusy])
    async def unload(self, params: UnloadModel) -> Empty:
        """Free a model's memory. One that is not loaded is left as it is."""
        unloaded = await self.services.unload(params.id, force=params.force)
        self.services.asked.pop(params.id, None)
        if not unloaded:
            await anyio.to_thread.run_sync(self.services.store.get, params.id)
        return Empty()

    @method("models.delete", errors=[ModelNotFound, ModelReadOnly, ModelBusy, StorageError])
    async def delete(self, params: DeleteModel) -> Empty:
        """Delete a model and its files, or one of its adapters. Refused while it is answering, and for the embedded
        model.
        """
        store = self.services.store
        await anyio.to_thread.run_sync(store.check_deletable, params.id)
        await self.services.unload(params.id)
        if params.adapter:
            await anyio.to_thread.run_sync(store.delete_adapter, params.id, params.adapter)
            return Empty()
        await anyio.to_thread.run_sync(store.delete, params.id)
        await anyio.to_thread.run_sync(self.services.states.forget_model, params.id)
        await self.services.unload(params.id, force=True)  # a request may have loaded it meanwhile
        self.services.forget(params.id)
        self.services.asked.pop(params.id, None)
        self._changed(params.id, "deleted")
        return Empty()

    def _with_state(self, model: InstalledModel) -> InstalledModel:
        state, error = self.services.state(model.id)
        if state == "available":
            return model
        return msgspec.structs.replace(model, state=state, error=error or model.error)

    def _changed(self, id: str, state: str) -> None:
        self.services.ctx.emit("models.changed", {"id": id, "state": state, "error": ""}, key=f"models.changed/{id}")


def _options_of(params: ModelOptions) -> ModelOptions:
    """The options alone of params that have more."""
    return ModelOptions(**{name: getattr(params, name) for name in ModelOptions.__struct_fields__})


def _absolute(path: str) -> Path:
    if not Path(path).is_absolute():
        raise InvalidModelFile("a file's path must be absolute", path=path, reason="unreadable")
    return Path(path)


def _shown(info: GGUFInfo) -> dict[str, Any]:
    """The metadata without what nobody reads: vocabularies (their length stands for them) and very long
    texts.
    """
    shown: dict[str, Any] = {}
    for key, value in info.metadata.items():
        if value is None:
            shown[key] = f"[{info.lengths[key]} values]"
        elif isinstance(value, str) and len(value) > _SHOWN_TEXT:
            shown[key] = value[:_SHOWN_TEXT] + "…"
        else:
            shown[key] = value
    return shown

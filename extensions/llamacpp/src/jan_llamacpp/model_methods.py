"""The methods `models.*`: what is here, taking files in, and what is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import msgspec

from jan_core import Call, Empty, StorageError, method
from jan_core.types import InstalledModel

from .engines.errors import EngineInstallFailed
from .errors import (
    InvalidModelFile,
    InvalidModelId,
    ModelBusy,
    ModelExists,
    ModelNotFound,
    ModelReadOnly,
    NoUsableEngine,
)
from .failures import EngineBroken, ModelLoadFailed, OutOfMemory, WorkerDied, WorkerHung
from .services import Services, report_to
from .shapes import ImportModel, InspectedModel, LoadedModel, LoadModel, ModelChanged, ModelId, ModelList, UnloadModel

if TYPE_CHECKING:
    from .gguf import GGUFInfo

__all__ = ["LOAD_ERRORS", "ModelMethods"]

LOAD_ERRORS = [
    ModelNotFound,
    InvalidModelFile,
    ModelLoadFailed,
    EngineInstallFailed,
    EngineBroken,
    NoUsableEngine,
    WorkerDied,
    WorkerHung,
    OutOfMemory,
]
"""What a request that needs a loaded model may end with."""

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

    @method("models.import", errors=[InvalidModelFile, InvalidModelId, ModelExists, ModelReadOnly, StorageError])
    async def import_(self, params: ImportModel, call: Call) -> InstalledModel:
        """Take in a GGUF file of this machine. The file stays where it is; when this answers, the model is
        installed.
        """
        path = Path(params.path)
        if not path.is_absolute():
            raise InvalidModelFile("a file's path must be absolute", path=params.path, reason="unreadable")
        model = await self.services.store.take_in(
            path,
            id=params.id or None,
            share=not params.copy,
            on_bytes=lambda done, total: call.progress(f"copying {path.name}", done=done, total=total),
        )
        self.services.forget(model.id)
        self._changed(model.id, "available")
        return model

    @method("models.load", errors=LOAD_ERRORS)
    async def load(self, params: LoadModel, call: Call) -> LoadedModel:
        """Load a model now rather than at its first request, also when it failed a short time ago, or died too often.

        It stays until it is unloaded, idle for longer than the settings allow, or the least recently used one when
        another needs room; with `pin` until it is unloaded.
        """
        services = self.services
        id = await services.resolve(params.id, to_embed=True)
        loaded = await services.worker_of(id)
        worker = await services.pool.load(loaded, report_to(call), pin=params.pin)
        return LoadedModel(id, services.engine_of.get(loaded, ""), worker.info, services.pool.is_pinned(loaded))

    @method("models.unload", errors=[ModelNotFound, ModelBusy])
    async def unload(self, params: UnloadModel) -> Empty:
        """Free a model's memory. One that is not loaded is left as it is."""
        if not await self.services.unload(params.id, force=params.force):
            await anyio.to_thread.run_sync(self.services.store.get, params.id)
        return Empty()

    @method("models.delete", errors=[ModelNotFound, ModelReadOnly, ModelBusy, StorageError])
    async def delete(self, params: ModelId) -> Empty:
        """Delete a model and its files. Refused while it is answering, and for the embedded model."""
        store = self.services.store
        await anyio.to_thread.run_sync(store.check_deletable, params.id)
        await self.services.unload(params.id)
        await anyio.to_thread.run_sync(store.delete, params.id)
        await anyio.to_thread.run_sync(self.services.states.forget_model, params.id)
        self.services.forget(params.id)
        self._changed(params.id, "deleted")
        return Empty()

    def _with_state(self, model: InstalledModel) -> InstalledModel:
        state, error = self.services.state(model.id)
        if state == "available":
            return model
        return msgspec.structs.replace(model, state=state, error=error or model.error)

    def _changed(self, id: str, state: str) -> None:
        self.services.ctx.emit("models.changed", {"id": id, "state": state, "error": ""}, key=f"models.changed/{id}")


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

"""What the methods of models take and return, beside the shapes of `jan_core.types`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from jan_core.types import InstalledModel

from .memory.need import MemoryNeed
from .worker.reply import ModelInfo

__all__ = [
    "AdapterUse",
    "ConfigureModel",
    "DeleteModel",
    "DeviceMemory",
    "EstimateModel",
    "ImportModel",
    "InspectedModel",
    "LoadModel",
    "LoadedModel",
    "ModelChanged",
    "ModelEstimate",
    "ModelId",
    "ModelList",
    "ModelOptions",
    "UnloadModel",
]

NonEmpty = Annotated[str, Meta(min_length=1, max_length=256)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class ModelId(Struct, forbid_unknown_fields=True):
    """A model's id."""

    id: NonEmpty


class AdapterUse(Struct, forbid_unknown_fields=True):
    """One of the model's adapters (`InstalledModel.adapters`), and how strongly it applies."""

    id: NonEmpty
    scale: Annotated[float, Meta(ge=-100, le=100)] = 1.0


class ModelOptions(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How a model is loaded. What is left out is chosen: by what is kept for the model (`models.configure`), then by
    the settings, then by the model and the memory that is free.

    `n_ctx`: tokens one request may take. `parallel`: requests decoded at the same time. `kv_type`: elements of the KV
    cache; `q8_0` takes half the memory of `f16`, `q4_0` a quarter. `threads`: of the processor. `n_gpu_layers`: layers
    on GPUs, the output counted as one; -1: all. `mmap`: map the file instead of reading it: what was not used yet takes
    no memory, and the system may take back what it needs. `repack`: rewrite weights for this processor: up to twice the
    memory, half the time for prompts. `adapters`: those that apply, all at once. `speculate`: guess repeated tokens.
    """

    n_ctx: Annotated[int, Meta(ge=64, le=2**30)] | None = None
    parallel: Annotated[int, Meta(ge=1, le=256)] | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = None
    threads: Annotated[int, Meta(ge=1, le=512)] | None = None
    n_gpu_layers: Annotated[int, Meta(ge=-1, le=1024)] | None = None
    mmap: bool | None = None
    repack: bool | None = None
    adapters: Annotated[list[AdapterUse], Meta(max_length=16)] | None = None
    speculate: bool | None = None


class LoadModel(ModelOptions, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`pin`: keep it until it is unloaded by name, however idle it is and whatever else needs room. `force`: load it
    also when it does not fit the free memory. The options hold until it is unloaded by name, or loaded with others.
    """

    id: NonEmpty
    pin: bool = False
    force: bool = False


class EstimateModel(ModelOptions, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The model, and the options to estimate it with."""

    id: NonEmpty


class ConfigureModel(Struct, forbid_unknown_fields=True):
    """`options` replace those that were kept for the model; none: nothing is kept."""

    id: NonEmpty
    options: ModelOptions = field(default_factory=ModelOptions)


class DeleteModel(Struct, forbid_unknown_fields=True):
    """`adapter`: delete only this adapter of the model."""

    id: NonEmpty
    adapter: str = ""


class DeviceMemory(Struct):
    """Memory of one place, in bytes: `device` is `cpu`, or a GPU as in `cuda0`. `needed` is the sum of `parts`; a
    twentieth of `free`, and at least 128 MiB, is left to others before something `fits`.
    """

    device: str
    name: str
    free: int
    needed: int
    fits: bool
    parts: MemoryNeed


class ModelEstimate(Struct):
    """What a model would take. `n_ctx` to `n_gpu_layers`: as it would be loaded now; `cells`: tokens in the KV cache
    for all requests together; `max_n_ctx`: the longest context that would fit (0: none). `reasons`: for what was
    chosen.

    `rough`: the model has recurrent layers or latent attention, for which the parts are less exact.
    """

    id: str
    fits: bool
    n_ctx: int
    cells: int
    parallel: int
    kv_type: str
    n_gpu_layers: int
    max_n_ctx: int
    memory: list[DeviceMemory]
    reasons: list[str]
    rough: bool


class ModelChanged(Struct):
    """Data of the event `models.changed`. `error` says why a load failed."""

    id: str
    state: Literal["available", "loading", "loaded", "failed", "deleted"]
    error: str


class ModelList(Struct):
    models: list[InstalledModel]


class InspectedModel(Struct):
    """A model and what its file's header says. `metadata` leaves out vocabularies and texts over 4,096
    characters.
    """

    model: InstalledModel
    version: int
    embedding_length: int
    block_count: int
    tokenizer: str
    n_vocab: int
    n_tensors: int
    has_chat_template: bool
    metadata: dict[str, Any]


class ImportModel(Struct, forbid_unknown_fields=True):
    """Take in the GGUF file at `path`; of a split model any one, the others being beside it. `id` empty: made from the
    file's name. `copy`: never share the file's blocks.

    `projector`: the file that turns images into embeddings for this model; left out: the one beside it that fits, if
    there is just one; empty: none. `base`: the file is a LoRA adapter for this installed model.

    `hashes`: the SHA-256 of files, by name, where whoever brings them computed it (a download); they are kept, and not
    checked. `origin`: the id of the catalogue's model that this is. `unchecked`: the files were fetched, and
    nobody knew what they should hash to; the model is marked so.
    """

    path: NonEmpty
    id: str = ""
    copy: bool = False
    projector: str | None = None
    base: str = ""
    hashes: Annotated[dict[str, Sha256], Meta(max_length=1024)] = field(default_factory=dict)
    origin: Annotated[str, Meta(max_length=256)] = ""
    unchecked: bool = False


class LoadedModel(Struct):
    """A model in memory: what the engine says about it, and the engine build it runs on.

    `pinned`: it is not unloaded for idleness or for another model. `memory`: what it was estimated to take, when it was
    loaded; `chosen`: what was chosen for it then, and why.
    """

    id: str
    engine: str
    info: ModelInfo
    pinned: bool = False
    memory: list[DeviceMemory] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)


class UnloadModel(Struct, forbid_unknown_fields=True):
    """`force`: also when it is answering; those answers end with an error."""

    id: NonEmpty
    force: bool = False

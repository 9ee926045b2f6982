"""What the methods of this extension take and return, beside the OpenAI objects of `jan_core.types`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from jan_core.types import ChatMessage, EngineBuild, Hardware, InstalledModel, Tool

from .engines.record import EngineRecord
from .memory.need import MemoryNeed
from .worker.reply import ModelInfo

__all__ = [
    "AdapterUse",
    "ConfigureModel",
    "CountTokens",
    "Counted",
    "DeleteModel",
    "DeviceMemory",
    "EngineChanged",
    "EngineId",
    "EngineList",
    "EstimateModel",
    "Explanation",
    "ImportModel",
    "InspectedModel",
    "InstallEngine",
    "LoadModel",
    "LoadedModel",
    "ModelChanged",
    "ModelEstimate",
    "ModelId",
    "ModelList",
    "ModelOptions",
    "RollbackEngine",
    "SetAside",
    "UnloadModel",
    "UseEngine",
    "Verdict",
]

NonEmpty = Annotated[str, Meta(min_length=1, max_length=256)]


class EngineId(Struct, forbid_unknown_fields=True):
    """A build's id."""

    id: NonEmpty


class EngineChanged(Struct):
    """Data of the event `engines.changed`: a build was installed or removed, or set aside with a `reason`."""

    id: str
    installed: bool
    reason: str = ""


class InstallEngine(Struct, forbid_unknown_fields=True):
    """`id` empty: the build chosen for this machine. `wheel`: take the engine from this file (absolute path), which
    must have this `sha256` (hex) if one is given. With a wheel and no `id`, the build is of the wheel's version.
    """

    id: str = ""
    wheel: str = ""
    sha256: Annotated[str, Meta(pattern="^([0-9a-fA-F]{64})?$")] = ""


class UseEngine(Struct, forbid_unknown_fields=True):
    """`id`: an installed build, or empty: whichever the house chooses."""

    id: str = ""


class RollbackEngine(Struct, forbid_unknown_fields=True):
    """`id` empty: the build that is in use."""

    id: str = ""


class SetAside(Struct):
    """A build that is neither used nor installed again by itself, and why.

    `generation`: the installation it is about, 0 when there is none. `by`: what showed it: its installation, its first
    use, or a person. `at`: RFC 3339, UTC.
    """

    id: str
    generation: int
    reason: str
    by: Literal["install", "use", "person"]
    at: str


class EngineList(Struct):
    """Every build that could be used here, refused ones included, and the records of those that are installed.

    `installed` has the generation in use of each build, `earlier` those that can be gone back to. `use`: the build a
    person chose, empty: the house chooses.
    """

    builds: list[EngineBuild]
    installed: list[EngineRecord]
    earlier: list[EngineRecord] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    use: str = ""


class Verdict(Struct):
    """What became of one candidate, and why."""

    id: str
    verdict: Literal["chosen", "usable", "refused"]
    reason: str
    installed: bool


class Explanation(Struct):
    """Which build is used on this machine and why. `by`: the extension that chose, or `person`.

    `damaged`: libraries of the chosen build that are not what was installed. `warnings`: what a person expects and does
    not get (a GPU that no driver speaks for, a setting that cannot be followed), and what to do. `set_aside`: builds
    that are not used by themselves any more.
    """

    build: str
    reason: str
    by: str
    candidates: list[Verdict]
    hardware: Hardware
    damaged: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)


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
    """

    path: NonEmpty
    id: str = ""
    copy: bool = False
    projector: str | None = None
    base: str = ""


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


class CountTokens(Struct):
    """How many tokens a chat prompt takes in a model (empty: the default one), its template included."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str = ""
    tools: list[Tool] | None = None


class Counted(Struct):
    """`tokens` is exact for the whole prompt, unless it is `estimated`: errs high, for a remote engine's model.

    `per_message`: each message's own tokens and an even share of what the template adds, rounded up, so that
    their sum is never below `tokens`. `context`: the tokens one request may take, prompt and answer together;
    0: not known.
    """

    tokens: int
    per_message: list[int]
    context: int
    estimated: bool = False

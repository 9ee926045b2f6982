"""What the methods of this extension take and return, beside the OpenAI objects of `jan_core.types`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from jan_core.types import ChatMessage, EngineBuild, Hardware, InstalledModel, Tool

from .engines.record import EngineRecord
from .worker.protocol import ModelInfo

__all__ = [
    "CountTokens",
    "Counted",
    "EngineChanged",
    "EngineId",
    "EngineList",
    "Explanation",
    "ImportModel",
    "InspectedModel",
    "InstallEngine",
    "LoadModel",
    "LoadedModel",
    "ModelChanged",
    "ModelId",
    "ModelList",
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
    not get (a GPU that no driver speaks for, a setting that cannot be followed), and what to do.
    """

    build: str
    reason: str
    by: str
    candidates: list[Verdict]
    hardware: Hardware
    damaged: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class ModelId(Struct, forbid_unknown_fields=True):
    """A model's id."""

    id: NonEmpty


class LoadModel(Struct, forbid_unknown_fields=True):
    """`pin`: keep it until it is unloaded by name, however idle it is and whatever else needs room."""

    id: NonEmpty
    pin: bool = False


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
    """Take in the GGUF file at `path`. `id` empty: made from the file's name. `copy`: never share the file's
    blocks.
    """

    path: NonEmpty
    id: str = ""
    copy: bool = False


class LoadedModel(Struct):
    """A model in memory: what the engine says about it, and the engine build it runs on.

    `pinned`: it is not unloaded for idleness or for another model.
    """

    id: str
    engine: str
    info: ModelInfo
    pinned: bool = False


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

"""Models: those installed here, those a catalogue offers, and what decides which are recommended."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from .downloads import DownloadFile

__all__ = [
    "Evidence",
    "Flags",
    "InstalledModel",
    "ModelAdapter",
    "ModelContext",
    "ModelFile",
    "ModelLoad",
    "ModelRecord",
    "ModelSource",
    "ModelVariant",
    "Phase",
    "PhaseChoice",
    "SourcePage",
    "SourceQuery",
]

Phase = Literal["fallback", "mixed", "dynamic"]


class ModelAdapter(Struct):
    """A LoRA adapter that was taken in for a model. `size` in bytes."""

    id: str
    path: str
    size: int


class InstalledModel(Struct):
    """A model on this machine (`models.list`). `size` in bytes, of all its files; `context_length` in tokens.

    `path`: its file, the first one of several. `projector`: the file that turns images into embeddings for it, if there
    is one. `adapters` can be named when it is loaded. `options`: what it is loaded with where a load does not say
    otherwise (`models.configure`). `origin`: the id of the catalogue's model it was had as, where that is known.
    `hashes`: the SHA-256 of its files, where somebody computed them. `unchecked`: it was fetched from somewhere, and
    nobody knew what it should hash to.
    """

    id: str
    name: str
    path: str
    size: int
    state: Literal["available", "loading", "loaded", "failed"] = "available"
    embedded: bool = False
    architecture: str = ""
    parameters: int = 0
    quantization: str = ""
    context_length: int = 0
    license: str = ""
    imported_at: str = ""
    error: str = ""
    files: int = 1
    projector: str = ""
    adapters: list[ModelAdapter] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    origin: str = ""
    hashes: list[str] = field(default_factory=list)
    unchecked: bool = False


class ModelFile(Struct, omit_defaults=True):
    """One file of an installed model. `sha256` is lower-case hex, as it was when the file was taken in; empty when
    nobody computed it. `size` in bytes."""

    name: str
    sha256: str = ""
    size: int = 0


class ModelLoad(Struct, omit_defaults=True):
    """An installed model about to be loaded, for those who may veto it. `files` are all that would be read: its
    projector and the adapters in use too. `origin` as in `InstalledModel`."""

    id: str
    files: list[ModelFile] = field(default_factory=list)
    origin: str = ""


class ModelVariant(Struct, omit_defaults=True):
    """One way to have a model, e.g. a quantization. `files` are what must be there to run it; `memory` in bytes, 0 when
    unknown."""

    id: str
    format: str = "gguf"
    quantization: str = ""
    memory: int = 0
    files: list[DownloadFile] = field(default_factory=list)


class ModelRecord(Struct, omit_defaults=True):
    """A model as a catalogue describes it. `id` is stable over time; `files` are what must be there to run it: those of
    its first variant, where it has variants."""

    id: str
    name: str
    description: str = ""
    publisher: str = ""
    license: str = ""
    parameters: int = 0
    context_length: int = 0
    tags: list[str] = field(default_factory=list)
    files: list[DownloadFile] = field(default_factory=list)
    variants: list[ModelVariant] = field(default_factory=list)
    featured: bool = False
    source: str = ""
    verification: Literal["verified", "unverified", "builtin"] = "unverified"
    extra: dict[str, Any] = field(default_factory=dict)


class ModelSource(Struct):
    """A hub or catalogue. `method` takes a `SourceQuery` and returns a `SourcePage`.

    A source is named by data and reached through the method table, so that any extension can add one.
    """

    id: str
    title: str
    method: str
    verified: bool = False


class SourceQuery(Struct, omit_defaults=True):
    """What to ask a source for: everything, a search text, or one id. `cursor` continues a page. `source` is the
    `ModelSource`'s id, for a method that serves several."""

    source: str = ""
    text: str = ""
    id: str = ""
    cursor: str = ""
    limit: int = 100


class SourcePage(Struct, omit_defaults=True):
    """What a source knows. `cursor` asks for more; empty: that was all.

    `notes`: what was left out, and why. `age` in seconds since the source itself said so; `stale`: it could not be
    asked again, or is being asked now, and this is what it said last.
    """

    models: list[ModelRecord]
    cursor: str = ""
    notes: list[str] = field(default_factory=list)
    age: float = 0.0
    stale: bool = False


class ModelContext(Struct, omit_defaults=True):
    """For whom models are filtered and ranked. Never leaves this machine.

    `locale`: a BCP 47 tag (`pt-BR`); `region`: ISO 3166-1 (`BR`). Memory in bytes, 0 when unknown. `os`: `linux`,
    `macos`, `windows`; `arch`: `x86_64`, `arm64`.
    """

    locale: str = ""
    region: str = ""
    memory_free: int = 0
    device_memory_free: int = 0
    query: str = ""
    app_version: str = ""
    os: str = ""
    arch: str = ""
    memory_total: int = 0


Flags = dict[str, bool | int | float | str]
"""Evaluated feature flags by name."""


class Evidence(Struct, omit_defaults=True):
    """What the roll-out has seen of the dynamic arm: counts since the phase began, and the age of its list (s)."""

    requests: int = 0
    errors: int = 0
    deviations: int = 0
    age: float = 0.0


class PhaseChoice(Struct):
    phase: Phase
    reason: str

"""The collection `models`: one record a model."""

from __future__ import annotations

from msgspec import Struct, field

from .constraint import Constraint

__all__ = ["Deprecation", "File", "FileSource", "Pieces", "Record", "Requires", "Variant"]


class FileSource(Struct, omit_defaults=True, kw_only=True):
    """Where a file can be had. `kind`: `hf` (repo, rev, path), `modelscope` (repo, rev, path), `oci` (ref), `https`
    (url). A kind that this program does not know is passed over."""

    kind: str
    repo: str = ""
    rev: str = ""
    path: str = ""
    url: str = ""
    ref: str = ""
    xet: str = ""


class Pieces(Struct, omit_defaults=True, kw_only=True):
    """The hashes of a file's pieces of `len` bytes: `n` SHA-256 of 32 bytes each, in a file of their own at `target`
    (a path below the hub's `targets/`), whose own hash is `sha256`."""

    len: int
    n: int
    sha256: str
    target: str


class File(Struct, omit_defaults=True, kw_only=True):
    """One file of a model. `size` in bytes. `role`: `weights`, `projector`, `adapter`, `tokenizer`."""

    path: str
    role: str = "weights"
    size: int = 0
    sha256: str = ""
    pieces: Pieces | None = None
    sources: list[FileSource] = field(default_factory=list)


class Variant(Struct, omit_defaults=True, kw_only=True):
    """One way to have the model, e.g. a quantization. `files` are places in the record's list of files."""

    id: str
    format: str = "gguf"
    quant: str = ""
    ram_bytes: int = 0
    vram_bytes: int = 0
    files: list[int]


class Requires(Struct, omit_defaults=True, kw_only=True):
    """Version ranges (`>=0.3`) of the application, and of engines by name. Outside them the model is not shown."""

    app: str = ""
    engine: dict[str, str] = field(default_factory=dict)


class Deprecation(Struct, omit_defaults=True, kw_only=True):
    """The model is no longer recommended. `since`: a date; `replaced_by`: another id."""

    since: str = ""
    replaced_by: str = ""
    reason: str = ""


class Record(Struct, omit_defaults=True, kw_only=True):
    """A model. `id`: lower case, NFC, stable over time. `params`: how many; `ctx`: tokens. The first variant is the
    one that is taken when nobody names another. `gated`: "", `auto` or `manual`, as Hugging Face says it."""

    id: str
    schema: int = 1
    name: str
    description: str = ""
    publisher: str = ""
    license: str = ""
    gated: str = ""
    arch: str = ""
    params: int = 0
    ctx: int = 0
    modalities: list[str] = field(default_factory=list)
    caps: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    publisher_sig: dict[str, str] = field(default_factory=dict)
    requires: Requires | None = None
    target: list[Constraint] = field(default_factory=list)
    deprecated: Deprecation | None = None

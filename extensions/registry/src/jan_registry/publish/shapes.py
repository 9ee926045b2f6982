"""What the methods `registry.operator.*` take. Paths are absolute. What they answer is in `answers.py`.

Who publishes is not said here: a caller that has the keys' passphrase is the operator.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = [
    "Add",
    "Branching",
    "Experimenting",
    "Feature",
    "Flagging",
    "Folder",
    "Import",
    "Init",
    "Publish",
    "Revoke",
    "Rotate",
    "Sign",
]

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Conditions = list[Annotated[str, Meta(max_length=500)]]
"""Constraints as `locale=pt,pt-BR`, `region!=CN`, `memory_total>=8000000000`, `app_version<0.4`."""


class Folder(Struct):
    """The operator's folder: the one with `registry.toml`."""

    folder: Path


class Init(Struct):
    """Make an operator's folder with keys and an empty hub. `url`: where clients will find it, for display.

    `signers`: role -> `NEEDED/KEYS`, e.g. `2/3`, where it is not to be the usual number. An empty passphrase leaves the
    private keys unencrypted, and must be meant: `unprotected`.
    """

    folder: Path
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    url: str = ""
    signers: dict[str, Annotated[str, Meta(pattern=r"^[1-9]/[1-9]$")]] = field(default_factory=dict)
    passphrase: str = ""
    unprotected: bool = False


class Add(Struct):
    """Add a model, or change one. What is empty stays as it is; a file given replaces the one of that variant.

    `file`: a GGUF file on this machine: its size, SHA-256, piece list and what it says of itself are written down; it
    stays where it is, and `url` says where clients get it. `url` alone: with `size` and `sha256` as its publisher says.
    """

    folder: Path
    id: str
    name: str = ""
    description: str = ""
    publisher: str = ""
    license: str = ""
    tags: list[str] = field(default_factory=list)
    params: int = 0
    ctx: int = 0
    url: str = ""
    file: str = ""
    size: int = 0
    sha256: str = ""
    variant: str = ""
    where: Conditions = field(default_factory=list)


class Feature(Struct):
    """Put models into the list `slot` at place `at` (from 1; 0: at the end), take them off, or let it be these
    `only`. `where` None leaves open for whom it is as it was."""

    folder: Path
    slot: str
    models: list[str] = field(default_factory=list)
    at: Annotated[int, Meta(ge=0)] = 0
    remove: bool = False
    only: bool = False
    title: str | None = None
    priority: int | None = None
    where: Conditions | None = None


class Flagging(Struct):
    """Set a flag: for everybody, or with `percent` or `where` for those. `only`: drop the rules; `remove`: this one."""

    folder: Path
    id: str
    value: bool | int | str
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    where: Conditions = field(default_factory=list)
    only: bool = False
    remove: bool = False
    salt: str | None = None


class Branching(Struct):
    """`slot` empty: what would be shown anyway."""

    id: str
    slot: str = ""
    ratio: int = 1


class Experimenting(Struct):
    """`state`: `running` begins it or goes on with it, `paused` takes nobody new, `ended` ends it."""

    folder: Path
    id: str
    state: Annotated[str, Meta(pattern="^(running|paused|ended)$")]
    branches: list[Branching] = field(default_factory=list)
    title: str | None = None
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    metric: str | None = None
    salt: str | None = None
    where: Conditions | None = None


class Revoke(Struct):
    """Revoke a file by its SHA-256, a model by its id, or both. `reason` is shown to people. A model that is neither in
    the folder nor published is taken for a slip of the pen, unless it may be `unknown`."""

    folder: Path
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    sha256: str = ""
    model: str = ""
    unknown: bool = False


class Import(Struct):
    """Take over models: of a hub (`source`, one that `registry.sources` names; `url` for another address of it), or of
    `file`, a local copy of Jan's catalogue. `ids`, else all with the words of `text`."""

    folder: Path
    source: str = ""
    url: str = ""
    file: str = ""
    ids: list[str] = field(default_factory=list)
    text: str = ""
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100
    stats: bool = False
    dry_run: bool = False


class Publish(Struct):
    """`only`: these collections; none: all. `dry_run`: say what clients would see, and change nothing.

    `expect`: the version of the hub that the caller knows; -1: whatever it is at.
    """

    folder: Path
    dry_run: bool = False
    only: list[str] = field(default_factory=list)
    passphrase: str = ""
    expect: int = -1


class Sign(Struct):
    """Sign what waits in the folder `pending` with the private keys in `keys` (folders or files). A key signs files of
    the role that its own file is named after (`root-1.pem`); one named otherwise signs all.

    `show`: only say what waits. Needs neither the operator's folder nor the network.
    """

    pending: Path
    keys: list[Path] = field(default_factory=list)
    passphrase: str = ""
    show: bool = False


class Rotate(Struct):
    """Give a role other keys. `remove`: ids (or the beginnings of them) or files of keys that go; as many new ones are
    made beside them, unless `add` names files of public keys that others made. With neither, all keys are replaced;
    with `add` or a `threshold` alone, none go.

    `stolen`: what is published is taken from the folder, not from what a thief may have published, and the snapshot
    gets another key too. `renew`: keep the keys of root or targets, and sign them for another lifetime.
    """

    folder: Path
    role: str
    remove: list[str] = field(default_factory=list)
    add: list[Path] = field(default_factory=list)
    threshold: int | None = None
    stolen: bool = False
    renew: bool = False
    passphrase: str = ""

"""What the methods `registry.operator.*` take and answer. Paths are absolute; times RFC 3339 in UTC.

Who publishes is not said here: a caller that has the keys' passphrase is the operator.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = [
    "Add",
    "Branching",
    "Changed",
    "Experimenting",
    "Feature",
    "Flagging",
    "Folder",
    "Founded",
    "Import",
    "Imported",
    "Init",
    "KeyState",
    "Lacking",
    "NotImported",
    "OperatorStatus",
    "Preview",
    "Problem",
    "Publication",
    "Publish",
    "Revoke",
    "RoleState",
    "Rotate",
    "ShownCollection",
    "ShownExperiment",
    "ShownFlag",
    "ShownList",
    "Sign",
    "Signed",
    "WaitingFile",
]

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Conditions = list[Annotated[str, Meta(max_length=500)]]
"""Constraints as `locale=pt,pt-BR`, `region!=CN`, `memory_total>=8000000000`, `app_version<0.4`."""


class Problem(Struct):
    """Something wrong in the operator's folder. `line` counts from 1; 0: the file as a whole. `field` as in
    `files[0].sha256`."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


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


class Founded(Struct):
    """`files` were written; `root` is the first root, which clients must be given, and `root_sha256` its SHA-256.
    `keys`: role -> the files of its private keys."""

    folder: str
    files: list[str]
    keys: dict[str, list[str]]
    root: str
    root_sha256: str


class Changed(Struct):
    """`files` (relative to the folder) that were written; none: everything was so already. `note`: for a person."""

    files: list[str]
    note: str = ""


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
    """Revoke a file by its SHA-256, a model by its id, or both. `reason` is shown to people."""

    folder: Path
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    sha256: str = ""
    model: str = ""


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


class NotImported(Struct):
    id: str
    reason: str


class Imported(Struct):
    """Ids. `unchanged` were there with the same content. `notes`: what the source said was left out."""

    added: list[str]
    updated: list[str]
    unchanged: int
    skipped: list[NotImported]
    notes: list[str]
    files: list[str]


class Publish(Struct):
    """`only`: these collections; none: all. `dry_run`: say what clients would see, and change nothing.

    `expect`: the version of the hub that the caller knows; -1: whatever it is at.
    """

    folder: Path
    dry_run: bool = False
    only: list[str] = field(default_factory=list)
    passphrase: str = ""
    expect: int = -1


class ShownCollection(Struct):
    """How a collection changes: ids. `full_bytes`: for a client that has nothing; `delta_bytes`: for one that has the
    version before (0: there is no delta)."""

    name: str
    seq: int
    count: int
    created: list[str]
    updated: list[str]
    deleted: list[str]
    full_bytes: int
    delta_bytes: int


class ShownList(Struct):
    """A featured list: `who` sees it, and the names of its models, best first."""

    id: str
    title: str
    who: str
    models: list[str]


class ShownFlag(Struct):
    """A flag's values in the order in which they are tried; the last is for everybody else."""

    id: str
    values: list[str]


class ShownExperiment(Struct):
    id: str
    state: str
    who: str
    branches: list[str]


class Lacking(Struct):
    """`needs` signatures more, of any of `keyids`."""

    role: str
    needs: int
    keyids: list[str]


class Preview(Struct):
    """What clients would see. `version`: the hub's next; `missing`: signatures that the keys at hand cannot give."""

    version: int
    collections: list[ShownCollection]
    featured: list[ShownList]
    flags: list[ShownFlag]
    experiments: list[ShownExperiment]
    revocations: list[str]
    signs: list[str]
    missing: list[Lacking]
    bytes_written: int
    warnings: list[str]


class Publication(Struct):
    """`published` False: it was a dry run. `tree` is what clients must see: hand it to the web server."""

    published: bool
    tree: str
    preview: Preview


class Sign(Struct):
    """Sign what waits in the folder `pending` with the private keys in `keys` (folders or files). A key signs files of
    the role that its own file is named after (`root-1.pem`); one named otherwise signs all.

    `show`: only say what waits. Needs neither the operator's folder nor the network.
    """

    pending: Path
    keys: list[Path] = field(default_factory=list)
    passphrase: str = ""
    show: bool = False


class WaitingFile(Struct):
    """Metadata that wait for signatures. `says`: what will hold when they are signed, for a person to read first."""

    file: str
    role: str
    version: int
    expires: str
    signed_by: list[str]
    says: list[str]


class Signed(Struct):
    """`signed`: file -> the ids of the keys that signed it now."""

    waiting: list[WaitingFile]
    signed: dict[str, list[str]]


class Rotate(Struct):
    """Give a role other keys. `remove`: ids (or the beginnings of them) or files of keys that go; none: all of them.
    As many new ones are made beside them, unless `add` names files of public keys that others made.

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


class KeyState(Struct):
    """A key that may sign. `file`: where it lies on this machine; empty: somewhere else."""

    keyid: str
    file: str


class RoleState(Struct):
    """`version` 0: never signed. `due`: it should be signed anew now, by publishing (root and targets: by
    `rotate-keys --renew`)."""

    role: str
    version: int
    expires: str
    due: bool
    threshold: int
    keys: list[KeyState]


class OperatorStatus(Struct):
    """`version` of the published hub, 0 before the first time, and `bytes` of all its files. `changes` would be
    published."""

    folder: str
    name: str
    url: str
    tree: str
    version: int
    bytes: int
    records: dict[str, int]
    changes: list[ShownCollection]
    roles: list[RoleState]
    waiting: list[WaitingFile]
    problems: list[Problem]
    warnings: list[Problem]

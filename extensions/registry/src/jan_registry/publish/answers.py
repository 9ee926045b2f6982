"""What the methods `registry.operator.*` answer. Paths are absolute or of the folder; times RFC 3339 in UTC."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "Changed",
    "Founded",
    "Imported",
    "KeyState",
    "Lacking",
    "NotImported",
    "OperatorStatus",
    "Preview",
    "Problem",
    "Publication",
    "RoleState",
    "ShownCollection",
    "ShownExperiment",
    "ShownFlag",
    "ShownList",
    "Signed",
    "WaitingFile",
]


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

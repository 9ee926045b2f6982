"""What crosses between the host and an isolated extension beside the extension's own methods. Data only.

Requests and notifications that are named `$/…` are internal to this package; everything else goes by its own name.
"""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..extension import Failure
from ..manifest import Manifest
from ..package import Snapshot, SourceFile

__all__ = [
    "Activate",
    "Asked",
    "Description",
    "ErrorShape",
    "Failed",
    "Hello",
    "HookCall",
    "HookShape",
    "Line",
    "MethodShape",
    "State",
    "Told",
    "Values",
    "decode_asked",
    "pack",
    "unpack",
]


class Asked(Struct):
    """The params of every request. `params` are the method's own; `caller` is who asked in the first place; `key` names
    the stream in `$/taken`; `items` says whether anybody wants the stream's items."""

    key: int = 0
    caller: str = ""
    items: bool = True
    params: Raw = Raw(b"{}")


class Hello(Struct):
    """What a child must know to import its extension. `source` makes a `loader.PackageSource`; `snapshot` is the code
    where it must not be read from the disk (`pack`); `level` is the host's log level."""

    id: str
    number: int
    manifest: Manifest
    source: dict[str, Any]
    level: int
    snapshot: bytes = b""


class HookShape(Struct):
    """A hook that the extension implements."""

    name: str
    tryfirst: bool = False
    trylast: bool = False


class ErrorShape(Struct):
    """An error that a method declares."""

    name: str
    code: int
    type: str
    retryable: bool
    doc: str


class MethodShape(Struct):
    """A method of the extension, without its types: those are in the description's `document`."""

    name: str
    summary: str
    streams: bool
    takes_call: bool
    deadline: float | None
    errors: list[ErrorShape]


class Description(Struct):
    """What an extension turned out to be once it was imported.

    `document` is the OpenRPC document of its methods; `settings` the JSON schema of its settings with `$ref`s into
    `settings_types`, and `defaults` the values of all of them.
    """

    hooks: list[HookShape]
    methods: list[MethodShape]
    document: dict[str, Any]
    settings: dict[str, Any] | None = None
    settings_types: dict[str, Any] = {}
    defaults: dict[str, Any] = {}


class Activate(Struct):
    """`$/activate`: where the extension keeps its data, and its settings."""

    data_dir: str
    settings: dict[str, Any]


class Values(Struct):
    """`$/settings`: all settings anew."""

    settings: dict[str, Any]


class HookCall(Struct):
    """`$/hook` and `$/hooks`: one hook with its arguments as plain data."""

    name: str
    arguments: dict[str, Any] = {}


class Line(Struct, omit_defaults=True):
    """`$/log`: one record. `trace` is the formatted traceback, `at` seconds since the epoch."""

    name: str
    level: int
    message: str
    at: float
    trace: str = ""


class Told(Struct):
    """`$/event`: an event that the extension emits."""

    name: str
    data: Any
    key: str = ""


class State(Struct):
    """What one generation hands over to the next, in MessagePack, which keeps bytes what they are; None: nothing."""

    state: bytes | None


class Failed(Struct):
    """`$/failed`: something of the extension failed that nobody waits for."""

    failure: Failure


def pack(snapshot: Snapshot) -> bytes:
    """A compiled snapshot as bytes that an interpreter of the same version can read."""
    files = [(name, str(f.path), f.is_package, f.sha, f.code) for name, f in snapshot.files.items()]
    return marshal.dumps((snapshot.package, str(snapshot.root), snapshot.digest, files))


def unpack(data: bytes) -> Snapshot:
    """The reverse of `pack`."""
    package, root, digest, files = marshal.loads(data)
    return Snapshot(
        package,
        Path(root),
        {name: SourceFile(Path(path), is_package, sha, code) for name, path, is_package, sha, code in files},
        digest,
    )


decode_asked = msgspec.json.Decoder(Asked).decode

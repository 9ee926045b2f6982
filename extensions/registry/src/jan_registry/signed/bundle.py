"""What was shipped with the program: a hub's tree of one moment, with only what was current then.

It is served at once and without a network, so it is read without TUF, whose import alone takes longer than the whole
list may: it is as trustworthy as the program's own code, which came in the same package, and whoever could change the
one could change the other. What is checked on the way is that nothing was damaged: the snapshots' hashes are those
that the metadata state. That the metadata are signed is for `verify_bundle` to say, when the program is built and once
in the background after a start; a bundle that fails it is to be dropped.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from ..collections import COLLECTIONS
from .delta import read_snapshot, unpack
from .errors import Refused
from .fetching import TooLarge, Unreachable
from .folder import FolderFetch
from .store import CollectionState

__all__ = ["Bundle", "read_bundle", "shipped_root", "verify_bundle"]

_MAX_METADATA = 5_000_000
_MAX_SNAPSHOT = 512 << 20


class _Meta(Struct):
    version: int


class _Versions(Struct):
    version: int
    expires: str
    meta: dict[str, _Meta] = field(default_factory=dict)


class _Custom(Struct):
    seq: int = 0
    count: int = 0
    at: int = 0


class _Target(Struct):
    length: int
    hashes: dict[str, str]
    custom: _Custom = field(default_factory=_Custom)


class _Targets(Struct):
    version: int
    expires: str
    targets: dict[str, _Target] = field(default_factory=dict)


class _Signature(Struct):
    keyid: str


class _Online(Struct):
    signed: _Versions
    signatures: list[_Signature]


class _Role(Struct):
    signed: _Targets
    signatures: list[_Signature]


_Form = TypeVar("_Form", _Online, _Role)


class Bundle:
    """Reads as HubStore does; in memory once it is read. Raises Refused for a snapshot that is not the stated one."""

    def __init__(self, folder: Path, states: dict[str, CollectionState]) -> None:
        self._fetch = FolderFetch(folder)
        self._states = states
        self._rows: dict[str, dict[str, bytes]] = {}

    def state(self, name: str) -> CollectionState | None:
        """How a collection stands; None when it is not part of it."""
        return self._states.get(name)

    def get(self, name: str, id: str) -> bytes | None:
        """The canonical bytes of one record."""
        return self._collection(name).get(id)

    def records(self, name: str) -> list[bytes]:
        """The canonical bytes of all records of a collection, in the order of their ids."""
        return list(self._collection(name).values())

    def _collection(self, name: str) -> dict[str, bytes]:
        state = self._states.get(name)
        if state is None:
            return {}
        if name not in self._rows:
            try:
                self._rows[name] = dict(read_snapshot(_snapshot(self._fetch, name, state.sha256)))
            except ValueError as error:
                raise Refused("malformed", f"the collection {name} of the package: {error}") from None
        return self._rows[name]


def read_bundle(folder: Path, *, now: float) -> Bundle:
    """What the folder holds, unverified but for damage. `now`: a time of publication later than it is not believed.

    Raises Refused when it cannot be used.
    """
    fetch = FolderFetch(folder)
    timestamp = _read(fetch, "timestamp", _Online)
    snapshot = _read(fetch, f"{timestamp.signed.meta['snapshot.json'].version}.snapshot", _Online)
    above = {"timestamp": timestamp.signed, "snapshot": snapshot.signed}
    if (targets := snapshot.signed.meta.get("targets.json")) is not None:
        above["targets"] = _read(fetch, f"{targets.version}.targets", _Online).signed
    roots = _roots(folder)
    versions = {"root": max(roots)} | {role: signed.version for role, signed in above.items()}
    states = {}
    for name in COLLECTIONS:
        meta = snapshot.signed.meta.get(f"{name}.json")
        role = _read(fetch, f"{meta.version}.{name}", _Role) if meta else None
        target = role.signed.targets.get(f"collections/{name}.json") if role else None
        if role is not None and target is not None:
            published = min(target.custom.at, int(now))
            states[name] = CollectionState(
                name=name,
                seq=target.custom.seq or role.signed.version,
                sha256=target.hashes.get("sha256", ""),
                count=target.custom.count,
                verified_at=published,
                checked_at=published,
                expires_at=min(
                    _seconds(expires) for expires in [role.signed.expires, *(one.expires for one in above.values())]
                ),
                origin="bundle",
                role=name,
                keyids=[signature.keyid for signature in role.signatures],
                versions=versions | {name: role.signed.version},
            )
    return Bundle(folder, states)


def verify_bundle(folder: Path, root: bytes) -> None:
    """Hold all of it against the keys of `root`, as a client would a hub, except that it may have expired.

    Blocks; imports TUF. Raises Refused, or Unreachable for a file that is missing.
    """
    import tempfile

    from .metadata import refresh

    fetch = FolderFetch(folder)
    with tempfile.TemporaryDirectory() as cache:
        hub = refresh(Path(cache), fetch, root, {}, None)
    for error in hub.failed.values():
        raise error
    for target in hub.targets.values():
        content = _snapshot(fetch, target.name, target.sha256)
        if len(content) != target.length:
            raise Refused("tampered", f"the collection {target.name} has another length than was signed")


def shipped_root(folder: Path) -> bytes:
    """The oldest root metadata in it: what the program trusts first. It stays the same when newer ones are shipped.

    Raises Refused when there is none.
    """
    return _get(FolderFetch(folder), f"metadata/{min(_roots(folder))}.root.json", _MAX_METADATA)


def _roots(folder: Path) -> list[int]:
    found = [re.fullmatch(r"([1-9][0-9]{0,8})\.root\.json", path.name) for path in folder.glob("metadata/*.root.json")]
    versions = [int(match[1]) for match in found if match]
    if not versions:
        raise Refused("malformed", f"{folder} has no root metadata")
    return versions


def _read(fetch: FolderFetch, name: str, form: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(_get(fetch, f"metadata/{name}.json", _MAX_METADATA), type=form)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"{fetch.folder}: {name}.json: {error}") from None


def _get(fetch: FolderFetch, path: str, limit: int) -> bytes:
    try:
        return fetch(path, limit)
    except Unreachable as error:
        raise Refused("malformed", str(error)) from None
    except TooLarge as error:
        raise Refused("too_large", str(error)) from None


def _snapshot(fetch: FolderFetch, name: str, sha256: str) -> bytes:
    path = f"targets/collections/{sha256}.{name}.json.gz"
    try:
        content = unpack(_get(fetch, path, _MAX_SNAPSHOT), _MAX_SNAPSHOT)
    except (ValueError, TooLarge) as error:
        raise Refused("tampered", f"{fetch.folder}: {path}: {error}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Refused("tampered", f"{fetch.folder}: {path} is damaged")
    return content


def _seconds(expires: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(expires).timestamp())

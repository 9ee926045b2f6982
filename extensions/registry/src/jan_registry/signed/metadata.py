"""A hub's signed metadata, by python-tuf's client: what is published now, and who signed it.

TUF does signatures, thresholds, versions and expiry. What this adds: files by our own fetcher, the time as it was
given, versions that are also remembered elsewhere (trust.py), a cache folder that heals itself, and that one role that
is late or broken holds up no other. It does not look at what the collections contain.

TUF does not sync its files to the disk, and need not: what a power cut takes is fetched again, and the versions that
must not be forgotten are in SQLite.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Role, Root, TargetFile, Targets
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from ..collections import COLLECTIONS
from .errors import Refused, refusal
from .fetching import Fetch, NotThere, TooLarge
from .trust import Seen

__all__ = ["MAX_SNAPSHOT", "TOP", "Hub", "Settled", "Target", "refresh"]

TOP = ("root", "timestamp", "snapshot", "targets")
"""The roles that every hub has."""
MAX_SNAPSHOT = 512 << 20
"""Bytes of one collection; a larger one is refused whoever signed it."""
_MAX_METADATA = 5_000_000
_END_OF_TIME = 253402300799
"""The last second that a date can have; a clock may say anything."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Target:
    """A collection as it is signed. `gz`: bytes of its compressed snapshot; the rest as in CollectionState."""

    name: str
    role: str
    seq: int
    sha256: str
    length: int
    gz: int
    delta_from: frozenset[int]
    expires_at: int
    keyids: list[str]
    versions: dict[str, int]

    @property
    def path(self) -> str:
        return f"targets/collections/{self.sha256}.{self.name}.json.gz"


@dataclass(frozen=True)
class Settled:
    """What a client has nothing to do about: `collections` that are as the hub signed them at these `versions` of the
    roles above them."""

    versions: Mapping[str, int]
    collections: Set[str]


@dataclass
class Hub:
    """What is published. `withdrawn`: collections that those who sign for them do not list (any more).

    `failed`: why a collection cannot be told; one that is nowhere has never been signed. `seen`: what trust.py should
    remember; `healed`: whether the cache folder had to be thrown away. `settled`: nothing is new, and nothing else of
    this is filled in.
    """

    targets: dict[str, Target] = field(default_factory=dict)
    failed: dict[str, Refused | NotThere] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    seen: dict[str, Seen] = field(default_factory=dict)
    healed: bool = False
    settled: bool = False


def refresh(
    folder: Path,
    fetch: Fetch,
    root: bytes,
    seen: Mapping[str, Seen],
    at: float | None,
    settled: Settled | None = None,
) -> Hub:
    """Fetch what is new, and verify it. `folder` is TUF's cache; nobody else may use it meanwhile.

    `root`: the first root metadata that is trusted. `at`: the time that expiry is held against; None: expiry does not
    count. Raises Refused, Unreachable, OSError.
    """
    once = partial(_refresh, folder, fetch, root, seen, at, settled)
    try:
        return once(probing=True)
    except Refused:
        # Before somebody is accused: some servers know only one way to be asked whether there is a newer root.
        return once(probing=False)
    except OSError:
        # Something is in the way: a file where a folder must be, a mode, a broken disk. All of it can be had again.
        _clear(folder)
        hub = once(probing=True)
        hub.healed = True
        return hub


def _clear(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


class _Bridge(FetcherInterface):
    """Gives TUF what `fetch` gets, in memory. `path`: what was asked for last."""

    def __init__(self, fetch: Fetch, probing: bool) -> None:
        self._get, self._probing = fetch, probing
        self.path = "1.root.json"

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _MAX_METADATA)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        self.path = url
        try:
            return self._get(url, max_length, rare=self._probing and url.endswith(".root.json"))
        except NotThere as error:
            raise DownloadHTTPError(str(error), 404) from error


@contextlib.contextmanager
def _ours(bridge: _Bridge) -> Iterator[None]:
    try:
        yield
    except RepositoryError as error:
        raise refusal(error, bridge.path) from error
    except DownloadHTTPError as error:
        raise NotThere(str(error), status=404) from error
    except TooLarge as error:
        raise Refused("too_large", str(error)) from error


def _refresh(
    folder: Path,
    fetch: Fetch,
    root: bytes,
    seen: Mapping[str, Seen],
    at: float | None,
    settled: Settled | None,
    *,
    probing: bool,
) -> Hub:
    folder.mkdir(parents=True, exist_ok=True)
    bridge = _Bridge(fetch, probing)
    with _ours(bridge):
        updater = Updater(str(folder), "metadata/", fetcher=bridge, bootstrap=root)
        # The one place that looks into it: there is no other way to give it a time, or to learn what it trusts.
        trusted = updater._trusted_set
        trusted.reference_time = datetime.fromtimestamp(0 if at is None else min(max(at, 0), _END_OF_TIME), UTC)
        updater.refresh()
    top = _Top(folder, trusted, seen)
    top.refuse_older()
    paths = {name: path for name in COLLECTIONS if top.publishes(path := f"collections/{name}.json")}
    if settled and settled.collections == paths.keys() and settled.versions == top.versions():
        return Hub(settled=True)
    hub = Hub(seen={role: top.seen(role) for role in TOP})
    for name, path in paths.items():
        try:
            with _ours(bridge):
                target = updater.get_targetinfo(path)
            role = top.role_of(path)
            hub.seen[role] = top.seen(role)
            if target is None:
                hub.withdrawn.add(name)
            else:
                hub.targets[name] = _target(name, role, target, hub.seen[role], top)
        except (Refused, NotThere) as error:
            hub.failed[name] = error
    return hub


class _Top:
    """Those roles, once they are verified."""

    def __init__(self, folder: Path, trusted: Any, seen: Mapping[str, Seen]) -> None:
        self.folder, self.trusted, self.before = folder, trusted, seen
        self.root: Root = trusted.root
        self.targets: Targets = trusted.targets
        self.delegated: dict[str, Role] = dict((self.targets.delegations and self.targets.delegations.roles) or {})

    def versions(self) -> dict[str, int]:
        return {role: self.trusted[role].version for role in TOP}

    def refuse_older(self) -> None:
        """Hold the versions against those seen before, whatever TUF's own cache has forgotten.

        As in TUF, what the holders of replaced keys signed does not count any more: a thief who raised a version as
        far as it goes would otherwise keep everybody from what is signed after the rotation.
        """
        offered = {name.removesuffix(".json"): meta.version for name, meta in self.trusted.snapshot.meta.items()}
        offered |= self.versions()
        for role, before in self.before.items():
            if offered.get(role, 0) < before.version and (role == "root" or self._still_counts(role, before)):
                now = f"version {offered[role]}" if role in offered else "gone"
                raise Refused("rollback", f"{role}.json is {now}, and version {before.version} was seen before")

    def _still_counts(self, role: str, before: Seen) -> bool:
        """Whether those who signed it could sign it today."""
        authority = self.root.roles.get(role) or self.delegated.get(role)
        return authority is not None and len({*before.signers} & {*authority.keyids}) >= authority.threshold

    def publishes(self, path: str) -> bool:
        """Whether there can be such a target: for optional ones a role may be named that has signed nothing yet."""
        role = self.role_of(path)
        return role == "targets" or f"{role}.json" in self.trusted.snapshot.meta

    def role_of(self, path: str) -> str:
        """Who signs for a target: whoever lists it, else the first role that it is delegated to."""
        delegations = self.targets.delegations
        named = [role for role, _ in delegations.get_roles_for_target(path)] if delegations else []
        for role in ("targets", *named):
            if role in self.trusted and path in self.trusted[role].targets:
                return role
        return named[0] if named else "targets"

    def seen(self, role: str) -> Seen:
        """A role's version and who signed it, verified anew only when it is not the one seen before."""
        version = self.trusted[role].version
        before = self.before.get(role)
        if role == "root":
            return Seen(version, ())
        if before is not None and before.version == version and self._still_counts(role, before):
            return before
        metadata = Metadata[Any].from_bytes((self.folder / f"{role}.json").read_bytes())
        authority = self.root if role in self.root.roles else self.targets
        result = authority.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        return Seen(version, tuple(sorted(result.signed)))


def _target(name: str, role: str, target: TargetFile, seen: Seen, top: _Top) -> Target:
    """Raises Refused for what the operator has signed and nobody can use."""
    sha256 = target.hashes.get("sha256", "")
    if not _SHA256.fullmatch(sha256):
        raise Refused("malformed", f"the collection {name} is signed without a SHA-256")
    if target.length > MAX_SNAPSHOT:
        raise Refused("too_large", f"the collection {name} has {target.length} bytes; at most {MAX_SNAPSHOT} are taken")
    custom = target.custom if isinstance(target.custom, dict) else {}
    delta_from = custom.get("delta_from")
    roles = dict.fromkeys([*TOP, role])
    return Target(
        name=name,
        role=role,
        seq=_whole(custom.get("seq")) or seen.version,
        sha256=sha256,
        length=target.length,
        gz=_whole(custom.get("gz")) or target.length,
        delta_from=frozenset(_whole(seq) for seq in delta_from) if isinstance(delta_from, list) else frozenset(),
        expires_at=min(int(top.trusted[one].expires.timestamp()) for one in roles),
        keyids=list(seen.signers),
        versions={one: top.trusted[one].version for one in roles},
    )


def _whole(value: object) -> int:
    """A number above 0, or 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53 else 0

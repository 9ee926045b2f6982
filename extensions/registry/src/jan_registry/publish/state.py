"""What a tree publishes at present, read and verified: nobody signs anew what was not signed before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from .content import Content, unpack
from .deltas import History
from .errors import TreeDamaged, TreeUnknown
from .reading import contents
from .roles import DELEGATED, RoleKeys, target_name

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Metadata, Root, Targets

__all__ = ["State", "Target", "history_path", "metadata_path", "parse", "read", "snapshot_path"]

TIMESTAMP = "metadata/timestamp.json"
LARGEST = 2**31
"""Bytes of a canonical snapshot; more would be damage."""


class Target(msgspec.Struct, frozen=True):
    """What the signed metadata say of a collection. `seq` counts its versions; `gz`: bytes of the packed snapshot;
    `at`: when this content was published (seconds since the epoch)."""

    sha256: str
    length: int
    seq: int
    count: int
    delta_from: list[int]
    gz: int
    at: int


@dataclass(frozen=True)
class State:
    """`metadata`: role -> what is current of it, verified; empty before anything was published. `roots`: version ->
    every root there ever was."""

    tree: Path
    roots: dict[int, Metadata[Root]] = field(default_factory=dict)
    metadata: dict[str, Metadata[Any]] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """That of the timestamp: it grows with each publication. 0: nothing was published yet."""
        return self.version_of("timestamp")

    def version_of(self, role: str) -> int:
        found = self.metadata.get(role)
        return found.signed.version if found else 0

    def expires(self, role: str) -> float:
        return float(self.metadata[role].signed.expires.timestamp())

    def target(self, collection: str) -> Target | None:
        """None when the collection was never published. Raises TreeDamaged."""
        found: Metadata[Targets] | None = self.metadata.get(collection)
        if found is None:
            return None
        try:
            target = found.signed.targets[target_name(collection)]
            fields = {"sha256": target.hashes["sha256"], "length": target.length, **(target.custom or {})}
            return msgspec.convert(fields, Target)
        except (KeyError, msgspec.ValidationError) as error:
            raise _damaged(
                metadata_path(collection, found.signed.version), f"its target is unusable: {error}"
            ) from error

    def content(self, collection: str) -> Content | None:
        """The records that are published; None when none were ever. Raises TreeDamaged."""
        target = self.target(collection)
        if target is None:
            return None
        path = snapshot_path(collection, target.sha256)
        try:
            content = Content.read(unpack(contents(self.tree / path, LARGEST), min(target.length, LARGEST)))
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        if content.sha256 != target.sha256:
            raise _damaged(path, "its content does not have the signed hash")
        return content

    def history(self, collection: str) -> History | None:
        """Of the version that is signed; None when it is lost or is that of another version: it can be begun anew."""
        target = self.target(collection)
        if target is None:
            return None
        try:
            packed = contents(self.tree / history_path(collection, target.seq), LARGEST)
            history = msgspec.json.decode(unpack(packed, LARGEST), type=History)
        except (OSError, ValueError):
            return None
        present = history.points[-1] if history.points else None
        return history if present and (present.seq, present.sha256) == (target.seq, target.sha256) else None

    def delegator(self, role: str) -> Root | Targets:
        """Whose metadata say who signs for `role`."""
        return self.metadata["targets" if role in DELEGATED else "root"].signed  # type: ignore[no-any-return]

    def signers(self, role: str) -> RoleKeys | None:
        """Who may sign for a role, and how many of them have to; None when nothing says it yet."""
        if ("targets" if role in DELEGATED else "root") not in self.metadata:
            return None
        delegator = self.delegator(role)
        found = delegator.get_delegated_role(role)
        return RoleKeys([cast("SSlibKey", delegator.get_key(keyid)) for keyid in found.keyids], found.threshold)


def read(tree: Path) -> State:
    """Raises TreeUnknown when there is no hub, TreeDamaged when something in it is not as it was signed."""
    state = State(tree)
    if not any(tree.glob("metadata/*.json")):
        raise TreeUnknown(f"There is no hub in {tree}.", tree=str(tree))
    _load_root(state, 1)
    version = 2
    while (tree / metadata_path("root", version)).is_file():
        _load_root(state, version)
        version += 1
    state.metadata["root"] = state.roots[version - 1]
    if not (tree / TIMESTAMP).is_file() and not any(tree.glob("metadata/*.snapshot.json")):
        # Created, and never published. (Were it only lost, versions would begin anew, and clients refuse them.)
        if (tree / metadata_path("targets", 1)).is_file():
            _load(state, "targets", 1)
        return state
    _load(state, "timestamp", 0)
    _load(state, "snapshot", state.metadata["timestamp"].signed.snapshot_meta.version)
    listed = state.metadata["snapshot"].signed.meta
    for role in ("targets", *DELEGATED):
        found = listed.get(f"{role}.json")
        if found is not None:
            _load(state, role, found.version)
        elif role == "targets":
            raise _damaged(metadata_path("snapshot", state.version_of("snapshot")), "it does not list targets")
    return state


def parse(content: bytes, role: str) -> Metadata[Any]:
    """Metadata of a role. Raises ValueError."""
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError

    kind = "targets" if role in DELEGATED else role
    try:
        found: Metadata[Any] = Metadata.from_bytes(content)
    except DeserializationError as error:
        raise ValueError("it is not TUF metadata") from error
    if found.signed.type != kind:
        raise ValueError(f"it is metadata of another kind ({found.signed.type})")
    return found


def metadata_path(role: str, version: int) -> str:
    return TIMESTAMP if role == "timestamp" else f"metadata/{version}.{role}.json"


def snapshot_path(collection: str, sha256: str) -> str:
    return f"targets/collections/{sha256}.{collection}.json.gz"


def history_path(collection: str, seq: int) -> str:
    """The publisher's own notes; clients have no use for them."""
    return f"deltas/{collection}/history-{seq}.json.gz"


def _load_root(state: State, version: int) -> None:
    root = _parsed(state.tree, "root", version)
    before = state.roots[version - 1].signed if version > 1 else None
    result = root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures)
    if not result.verified:
        raise _damaged(metadata_path("root", version), "it is not signed by enough keys")
    state.roots[version] = root


def _load(state: State, role: str, version: int) -> None:
    from tuf.api.exceptions import UnsignedMetadataError

    found = _parsed(state.tree, role, version)
    path = metadata_path(role, version)
    try:
        state.delegator(role).verify_delegate(role, found.signed_bytes, found.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    state.metadata[role] = found


def _parsed(tree: Path, role: str, version: int) -> Metadata[Any]:
    path = metadata_path(role, version)
    try:
        found = parse(contents(tree / path, LARGEST), role)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if role != "timestamp" and found.signed.version != version:
        raise _damaged(path, f"it is version {found.signed.version}")
    return found


def _damaged(path: str, reason: str) -> TreeDamaged:
    return TreeDamaged(f"The hub is damaged: {path}: {reason}.", file=path, reason=reason)

"""Metadata of a tree changed and signed by whoever holds keys: the operator in a hurry, or a thief."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile
from tuf.api.serialization.json import JSONSerializer

__all__ = ["newest", "rotate_online", "signed", "write"]


def newest(tree: Path, role: str) -> Any:
    """A role's metadata of the highest version that lies there."""
    if role == "timestamp":
        return Metadata.from_bytes((tree / "metadata/timestamp.json").read_bytes())
    paths = (tree / "metadata").glob(f"*.{role}.json")
    return Metadata.from_bytes(max(paths, key=lambda path: int(path.name.split(".")[0])).read_bytes())


def signed(metadata: Any, signers: Sequence[Any], change: Callable[[Any], object] = lambda signed: None) -> bytes:
    """The metadata with something changed, signed by these alone."""
    metadata = copy.deepcopy(metadata)
    change(metadata.signed)
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    content: bytes = metadata.to_bytes(JSONSerializer(compact=True))
    return content


def write(tree: Path, role: str, content: bytes) -> None:
    version = Metadata.from_bytes(content).signed.version
    name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
    (tree / "metadata" / name).write_bytes(content)


def rotate_online(tree: Path, signers: dict[str, Any], fresh: dict[str, Any]) -> None:
    """A new root in which snapshot and timestamp have other keys, and both signed by these; one version on."""
    root = newest(tree, "root")

    def other_keys(payload: Any) -> None:
        payload.version += 1
        for role in ("snapshot", "timestamp"):
            for keyid in list(payload.roles[role].keyids):
                payload.revoke_key(keyid, role)
            for signer in fresh[role]:
                payload.add_key(signer.public_key, role)

    def next_version(payload: Any) -> None:
        payload.version += 1

    write(tree, "root", signed(root, signers["root"][:2], other_keys))
    snapshot = signed(newest(tree, "snapshot"), fresh["snapshot"], next_version)
    write(tree, "snapshot", snapshot)
    version = Metadata.from_bytes(snapshot).signed.version

    def over_it(payload: Any) -> None:
        payload.version += 1
        payload.snapshot_meta = MetaFile(version)

    write(tree, "timestamp", signed(newest(tree, "timestamp"), fresh["timestamp"], over_it))
    signers |= fresh

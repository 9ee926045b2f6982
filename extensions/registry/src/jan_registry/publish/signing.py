"""Signatures: given with the keys at hand, counted, and waited for.

What keys on another machine have to sign lies in a folder, one metadata file for each role that waits, named as it will
be in the tree. `sign` adds one key's signature to such a file; it needs nothing but the file and the key. Publishing
takes up what has enough of them. Nothing here says whether a signature should be given: `describe` shows what to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from jan_core import StorageError

from .errors import PublishInvalid
from .files import write
from .reading import contents
from .roles import DELEGATED, OFFLINE
from .state import LARGEST, parse

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Targets

    from .keys import Keys

__all__ = ["Lack", "Pending", "Waiting", "complete", "describe", "sign"]


class Lack(Struct, frozen=True):
    """So many signatures are missing, of any of these keys."""

    needs: int
    keyids: list[str]


class Waiting(Struct, frozen=True, kw_only=True):
    """Metadata that wait for signatures. `expires` in seconds since the epoch. `signers`: for root and targets, role ->
    the keys that will sign for it, and `thresholds` how many of them; `target`: for a collection, what it will be."""

    file: str
    role: str
    version: int
    expires: int
    signed_by: list[str]
    signers: dict[str, list[str]]
    thresholds: dict[str, int]
    target: dict[str, Any]


def complete(metadata: Metadata[Any], role: str, delegators: Sequence[Root | Targets], keys: Keys) -> Lack | None:
    """Sign with the keys at hand as far as each delegator's threshold asks for it. None: there are enough.

    (A new root has two delegators: its predecessor and itself.) Signatures that do not hold are dropped.
    """
    payload = metadata.signed_bytes
    for delegator in delegators:
        result = delegator.get_verification_result(role, payload, metadata.signatures)
        at_hand = [found for keyid in delegator.get_delegated_role(role).keyids if (found := keys.get(keyid))]
        fresh = [signer for signer in at_hand if signer.public_key.keyid not in result.signed]
        for signer in fresh[: result.missing]:
            metadata.sign(signer, append=True)
    results = [delegator.get_verification_result(role, payload, metadata.signatures) for delegator in delegators]
    good = {keyid for result in results for keyid in result.signed}
    for keyid in set(metadata.signatures) - good:
        del metadata.signatures[keyid]
    if all(result.verified for result in results):
        return None
    lacking = {keyid for result in results if not result.verified for keyid in result.unsigned}
    return Lack(max(result.missing for result in results), sorted(lacking))


class Pending:
    """The folder of what waits. None as the folder: nothing waits, and nothing can."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def files(self) -> Iterator[tuple[Path, str, int]]:
        """File, role, version."""
        for path in sorted(self.folder.glob("*.json")) if self.folder else ():
            named = re.fullmatch(r"([1-9][0-9]*)\.([a-z]+)\.json", path.name)
            if named and named[2] in (*OFFLINE, *DELEGATED):
                yield path, named[2], int(named[1])

    def get(self, role: str, version: int) -> Metadata[Any] | None:
        """Raises PublishInvalid when the file is not what its name says."""
        for path, *named in self.files():
            if named == [role, version]:
                return _parsed(path, role, version)
        return None

    def put(self, role: str, metadata: Metadata[Any]) -> Path | None:
        if self.folder is None:
            return None
        path = self.folder / f"{metadata.signed.version}.{role}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, metadata.to_bytes())
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error
        return path

    def clear(self, role: str, version: int) -> None:
        """Drop what waited for this version or an older one."""
        for path, name, waiting in list(self.files()):
            if name == role and waiting <= version:
                path.unlink(missing_ok=True)


def describe(path: Path) -> Waiting:
    """What a file that waits would say if it were signed. Raises PublishInvalid."""
    role, metadata = _read(path)
    signed = metadata.signed
    delegator = signed if role == "root" else getattr(signed, "delegations", None)
    roles = (delegator.roles or {}) if delegator else {}
    target = next(iter(signed.targets.values()), None) if role in DELEGATED else None
    return Waiting(
        file=path.name,
        role=role,
        version=signed.version,
        expires=int(signed.expires.timestamp()),
        signed_by=list(metadata.signatures),
        signers={name: list(found.keyids) for name, found in roles.items()},
        thresholds={name: found.threshold for name, found in roles.items()},
        target=target.to_dict() if target else {},
    )


def sign(path: Path, signer: CryptoSigner) -> Waiting:
    """Add a key's signature to a file that waits. Whether the key counts is seen when it is published. Raises
    PublishInvalid, StorageError."""
    _, metadata = _read(path)
    metadata.sign(signer, append=True)
    try:
        write(path, metadata.to_bytes())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return describe(path)


def _read(path: Path) -> tuple[str, Metadata[Any]]:
    for found, role, version in Pending(path.parent).files():
        if found == path:
            return role, _parsed(path, role, version)
    raise PublishInvalid(f"{path} is no metadata that waits for signatures.", reason="unknown file")


def _parsed(path: Path, role: str, version: int) -> Metadata[Any]:
    try:
        metadata = parse(contents(path, LARGEST), role)
        if metadata.signed.version != version:
            raise ValueError(f"it is version {metadata.signed.version}")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise PublishInvalid(f"{path} is unusable: {error}.", reason=str(error)) from error
    return metadata

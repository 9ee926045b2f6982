"""What is done with private keys beside publishing: signing what waits, and giving a role others.

Blocks. Nothing is deleted: a private key that no longer counts is set aside under another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core import JanError, StorageError

from .answers import Signed
from .errors import MissingSignatures, PublishInvalid
from .founding import CUSTODY, save_key
from .keys import Keys, generate, load, load_public
from .plan import Published
from .publishing import key_files, open_keys, valid, waiting
from .rotation import KeyChange, renew, rotate
from .signing import Pending, sign
from .workspace import Workspace

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

__all__ = ["renew_role", "rotate_keys", "sign_waiting"]


def sign_waiting(pending: Path, keys: Iterable[Path], passphrase: bytes | None, *, show: bool) -> Signed:
    """Raises PublishInvalid, KeyUnusable, StorageError."""
    signed: dict[str, list[str]] = {}
    files = list(Pending(pending).files())
    if not files:
        raise PublishInvalid(f"Nothing waits for signatures in {pending}.", reason="nothing waits")
    paths = [] if show else [file for path in keys for file in (_keys_in(path) if path.is_dir() else [path])]
    for path in paths:
        named = path.stem.partition("-")[0]
        fitting = [file for file, role, _ in files if named not in CUSTODY or named == role]
        if not fitting:
            continue
        signer = load(path, passphrase)
        for file in fitting:
            sign(file, signer)
            signed.setdefault(str(file), []).append(signer.public_key.keyid)
    if not show and not signed:
        raise PublishInvalid(f"None of the keys is for what waits in {pending}.", reason="no key")
    return Signed(waiting(pending), signed)


def rotate_keys(
    folder: Path,
    role: str,
    *,
    remove: Sequence[str],
    add: Sequence[Path],
    threshold: int | None,
    stolen: bool,
    passphrase: bytes | None,
    now: float,
) -> tuple[Published, list[str]]:
    """Give a role other keys: all of them, unless some are named to go or to come. When one was stolen, what is
    published comes from the folder, and the snapshot gets other keys too. Returns what was published and the files of
    the new keys.

    Raises as `rotation.rotate` does, WorkspaceInvalid and KeyUnusable. What waits for signatures of keys that are
    elsewhere keeps the new keys; the old ones are set aside only when they do not count any more.
    """
    held = valid(folder, mend=True)
    files = key_files(held)
    keys = open_keys(files.values(), passphrase)  # before any is made: with a wrong passphrase none is
    signers = _signers(held, role)
    named = remove or add or threshold
    gone = _named(remove, signers, files) if named else signers
    made = [] if add else _make(held, role, len(gone), passphrase)
    changes = {role: KeyChange([load_public(path) for path in add] or _public(made), gone, threshold)}
    if stolen and role != "snapshot":
        also = _signers(held, "snapshot")
        try:
            fresh = _make(held, "snapshot", len(also), passphrase)
        except JanError:
            _forget(made)
            raise
        changes["snapshot"] = KeyChange(_public(fresh), also)
        made, gone = [*made, *fresh], [*gone, *also]
    collections = held.collections() if stolen else None
    try:
        keys = Keys([*keys, *open_keys(made, passphrase)])
        done = rotate(held.tree, changes, keys, collections=collections, now=now, pending=held.pending)
    except (MissingSignatures, StorageError):
        raise  # they may count by now, or will when what was begun is finished: a key too many harms nobody
    except JanError:
        _forget(made)
        raise
    _set_aside(files[keyid] for keyid in gone if keyid in files)
    return done, list(map(str, made))


def _keys_in(folder: Path) -> list[Path]:
    """An empty one was begun by somebody who was killed, and never was a key."""
    return [path for path in sorted(folder.glob("*.pem")) if path.stat().st_size]


def renew_role(folder: Path, role: str, *, passphrase: bytes | None, now: float) -> Published:
    """Root or targets for another of its lifetimes. Raises as `rotate_keys` does."""
    held = valid(folder, mend=True)
    return renew(held.tree, [role], open_keys(key_files(held).values(), passphrase), now=now, pending=held.pending)


def _signers(held: Workspace, role: str) -> list[str]:
    """The ids of the keys that sign for a role now."""
    from .state import read

    state = read(held.tree)
    signers = state.signers(role) if role in CUSTODY else None
    if signers is None:
        raise PublishInvalid(f"There is no role {role}.", reason="unknown role")
    return [key.keyid for key in signers.keys]


def _public(files: Iterable[Path]) -> list[SSlibKey]:
    return [load_public(path.with_suffix(".pub")) for path in files]


def _named(names: Sequence[str], present: Sequence[str], files: dict[str, Path]) -> list[str]:
    """Keys that somebody named by the beginning of their id, or by their file."""
    found = []
    for name in names:
        path = Path(name)
        fitting = [
            keyid
            for keyid in present
            if keyid.startswith(name.lower())
            or (keyid in files and files[keyid].name in (path.name, f"{path.name}.pem"))
        ]
        if len(fitting) != 1:
            raise PublishInvalid(f"{name} names {len(fitting)} keys of the role.", reason="unknown key")
        found += fitting
    return found


def _make(held: Workspace, role: str, count: int, passphrase: bytes | None) -> list[Path]:
    """New keys beside the old ones of the role, else where such keys usually lie."""
    folders = [path for path in held.key_folders if any(path.glob(f"{role}-*.pem"))]
    usual = [path for path in held.key_folders if path.name == CUSTODY[role] and path.is_dir()]
    target = (folders or usual or [path for path in held.key_folders if path.is_dir()])[:1]
    if not target:
        raise PublishInvalid("None of the folders of keys is there.", reason="no folder of keys")
    made: list[Path] = []
    try:
        for _ in range(count):
            made.append(save_key(generate(), target[0], role, passphrase))
    except JanError:
        _forget(made)
        raise
    return made


def _forget(files: Iterable[Path]) -> None:
    """Delete keys that nobody has heard of."""
    for path in files:
        path.unlink(missing_ok=True)
        path.with_suffix(".pub").unlink(missing_ok=True)


def _set_aside(files: Iterable[Path]) -> None:
    for path in files:
        for one in (path, path.with_suffix(".pub")):
            try:
                one.rename(one.with_name(f"{one.name}.retired"))
            except OSError as error:
                raise StorageError(f"{one}: {error.strerror or error}") from error

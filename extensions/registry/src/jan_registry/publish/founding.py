"""A new operator's folder: keys for every role, a hub without records, and files to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core import StorageError

from ..collections import digest
from .answers import Founded
from .errors import PublishInvalid, WorkspaceInvalid
from .files import write
from .reading import contents
from .roles import RoleKeys

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

__all__ = ["CUSTODY", "found", "save_key"]

CUSTODY = {
    "root": "offline",
    "targets": "offline",
    "models": "curators",
    "revocations": "security",
    "featured": "online",
    "flags": "online",
    "stats": "online",
    "snapshot": "online",
    "timestamp": "online",
}
"""Role -> who keeps its keys, which is the folder below `keys/` they are made in."""
_USUAL = {"root": (2, 3), "targets": (2, 3), "models": (1, 2), "revocations": (1, 2)}

_REGISTRY = """\
# The operator's folder of a model registry. What it says is published with: jan registry publish
name = {name}
url = {url}

# What web servers serve.
tree = "public"
# Where metadata wait for the signatures of keys that are kept elsewhere.
pending = "pending"
# Folders of private keys; one that is not there now (a stick that is not plugged in) is passed over.
keys = [{keys}]
"""
_IGNORE = """\
# Private keys never go into version control.
/keys/
*.pem
# The publisher's own work in progress.
/public/.staged/
/public/.publish.lock
"""
_README = """\
# {name}

The models, lists, flags and revocations of a model registry, one record a file.
`jan registry status --folder .` says how things stand, `jan registry publish --dry-run` what clients would see, and
`jan registry publish` signs it into `public/`, which any web server can serve.

`public/` is more than output: its versions and its root are what clients hold the next publication against.
Keep it, in version control or on the server.
"""
_DEFAULT_SLOT = """\
# What everybody is shown who matches no other list. Best first.
id = "default"
title = "Recommended"
models = [
]
"""
_PHASE = """\
# Which list clients show: the one built into the program (fallback), both to compare them (mixed), this one (dynamic).
id = "registry.phase"
value = "fallback"
"""


def found(
    folder: Path, name: str, *, url: str, signers: Mapping[str, str], passphrase: bytes | None, now: float
) -> Founded:
    """Make it. Raises WorkspaceInvalid when something is in the way, PublishInvalid, KeyUnusable, StorageError."""
    import tomlkit

    from .keys import Keys, generate
    from .tree import create

    _refuse_occupied(folder)
    made = {role: [generate() for _ in range(_count(role, signers)[1])] for role in CUSTODY}
    roles = {
        role: RoleKeys([signer.public_key for signer in mine], _count(role, signers)[0]) for role, mine in made.items()
    }
    folders = ", ".join(f'"keys/{custody}"' for custody in dict.fromkeys(CUSTODY.values()))
    texts = {
        ".gitignore": _IGNORE,
        "README.md": _README.format(name=name),
        "featured/default.toml": _DEFAULT_SLOT,
        "flags/registry.phase.toml": _PHASE,
        "registry.toml": _REGISTRY.format(
            name=tomlkit.item(name).as_string(), url=tomlkit.item(url).as_string(), keys=folders
        ),
    }
    keys = {
        role: [str(save_key(signer, folder / "keys" / CUSTODY[role], role, passphrase)) for signer in mine]
        for role, mine in made.items()
    }
    create(folder / "public", roles, Keys(signer for mine in made.values() for signer in mine), now=now)
    try:
        for file, text in texts.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            before = contents(path).decode() if path.exists() else ""
            if file == ".gitignore" or not before:  # a README that somebody wrote is theirs
                write(path, f"{before.rstrip()}\n{text}".lstrip().encode())
        (folder / "models").mkdir(exist_ok=True)
        root = folder / "public" / "metadata" / "1.root.json"
        return Founded(str(folder), sorted(texts), keys, str(root), digest(root.read_bytes()))
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder}: {error}") from error


def save_key(signer: CryptoSigner, folder: Path, role: str, passphrase: bytes | None) -> Path:
    """Keep a private key as `ROLE-N.pem`, and its public half beside it. Raises KeyUnusable, StorageError."""
    from .keys import public_pem, save

    number = 1
    while any(folder.glob(f"{role}-{number}.*")):
        number += 1
    path = folder / f"{role}-{number}.pem"
    save(signer, path, passphrase)
    try:
        write(path.with_suffix(".pub"), public_pem(signer.public_key))
    except OSError as error:
        path.unlink()  # nobody would know whose it is
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return path


def _refuse_occupied(folder: Path) -> None:
    for name in ("registry.toml", "keys", "public"):
        if (folder / name).exists():
            reason = f"{folder / name} is there already"
            raise WorkspaceInvalid(f"no new registry can be made: {reason}", problems=[])


def _count(role: str, signers: Mapping[str, str]) -> tuple[int, int]:
    """How many signatures, of how many keys."""
    for name in signers:
        if name not in CUSTODY:
            raise PublishInvalid(f"There is no role {name}.", reason="unknown role")
    if role not in signers:
        return _USUAL.get(role, (1, 1))
    needed, _, keys = signers[role].partition("/")
    return int(needed), int(keys)

"""Ed25519 keys: made, kept in files, and the ones at hand when something has to be signed.

Which key may sign for which role is not said here: the hub's own metadata say it (`roles.py`). A private key lies in
one PEM file (PKCS#8, RFC 5958), encrypted unless the caller asks for the opposite, readable by its owner alone. A
public key travels as PEM too (SubjectPublicKeyInfo, RFC 7468). This never writes below a published tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KeyUnusable
from .reading import contents

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

__all__ = ["Keys", "generate", "load", "load_public", "public_pem", "save"]


class Keys:
    """The private keys at hand, by key id (the hex SHA-256 that TUF's metadata name a key by)."""

    def __init__(self, signers: Iterable[CryptoSigner] = ()) -> None:
        self._signers = {signer.public_key.keyid: signer for signer in signers}

    def get(self, keyid: str) -> CryptoSigner | None:
        return self._signers.get(keyid)

    def __iter__(self) -> Iterator[CryptoSigner]:
        return iter(self._signers.values())


def generate(seed: bytes | None = None) -> CryptoSigner:
    """A new key, from the system's randomness; from `seed` (32 bytes) it is always the same one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(Ed25519PrivateKey.generate() if seed is None else Ed25519PrivateKey.from_private_bytes(seed))


def save(signer: CryptoSigner, path: Path, passphrase: bytes | None) -> None:
    """Write a private key to a new file of mode 0600; None leaves it unencrypted. Raises KeyUnusable, also when there
    is such a file already: a key is never overwritten."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if passphrase is not None and not passphrase:
        raise KeyUnusable(f"{path}: an empty passphrase protects nothing", file=str(path), reason="empty passphrase")
    secrecy: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    key = load_pem_private_key(signer.private_bytes, None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink()  # half a key is none
            raise
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def load(path: Path, passphrase: bytes | None) -> CryptoSigner:
    """Open a private key. A key that is not encrypted opens with any passphrase. Raises KeyUnusable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        content = contents(path)
        encrypted = b"ENCRYPTED PRIVATE KEY" in content
        if encrypted and not passphrase:
            raise _unusable(path, "it is encrypted, and there is no passphrase")
        key = load_pem_private_key(content, passphrase if encrypted else None)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = "the passphrase is wrong, or the file is damaged" if encrypted else "this is no private key in PEM"
        raise _unusable(path, wrong) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "this is no Ed25519 key")
    return CryptoSigner(key)


def public_pem(key: SSlibKey) -> bytes:
    """A public key as PEM, to be sent to who writes the hub's root."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(path: Path) -> SSlibKey:
    """A public key from PEM. Raises KeyUnusable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        key = load_pem_public_key(contents(path))
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "this is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(path, "this is no Ed25519 key")
    return SSlibKey.from_crypto(key)


def _unusable(path: Path, reason: str) -> KeyUnusable:
    return KeyUnusable(f"{path}: {reason}", file=str(path), reason=reason)

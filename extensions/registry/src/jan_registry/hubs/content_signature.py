"""Content signatures as Remote Settings makes them: who signed a collection, and whether that leads to a pinned root.

ECDSA on P-384 with SHA-384 over `Content-Signature:`, a zero byte, and canonical JSON; the signer's certificate comes
with its chain. This module says what is signed and which root is trusted; `certificates.py` judges the chain. It
fetches nothing.

Sources: Remote Settings' client specification; `rc_crypto::contentsignature` (application-services);
`canonicaljson-rs`, by which the server writes what it signs.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .certificates import ChainInvalid, signer_key

__all__ = ["SIGNER", "SignatureInvalid", "root_hash", "signed_bytes", "verify"]

SIGNER = "remote-settings.content-signature.mozilla.org"
"""Whom Mozilla's own collections are signed by."""

_HALF = 48


class SignatureInvalid(ValueError):
    """Nobody who is trusted signed this; the text says why not."""


def root_hash(text: str) -> bytes:
    """The SHA-256 of a root certificate (DER) from hex, with or without colons. Raises ValueError."""
    plain = text.replace(":", "").strip()
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", plain):
        raise ValueError("root_hash: must be the SHA-256 of a certificate, 64 hexadecimal digits")
    return bytes.fromhex(plain)


def signed_bytes(records: Iterable[Mapping[str, Any]], timestamp: int) -> bytes:
    """What is signed: all records but deleted ones, in the order of their ids, and when the collection last changed.

    Raises SignatureInvalid for a number that is not whole: how those are written is not reproduced here.
    """
    kept = [
        {key: value for key, value in record.items() if key != "deleted" and (key != "attachment" or value is not None)}
        for record in records
    ]
    kept.sort(key=lambda record: str(record["id"]))
    _whole_numbers(kept)
    payload = {"data": kept, "last_modified": str(timestamp)}
    # Not our own canonical form: here, whatever is not ASCII is escaped.
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return b"Content-Signature:\x00" + text.encode()


def verify(content: bytes, signature: str, chain: bytes, *, root: bytes, signer: str, now: float) -> None:
    """Check one signature (base64url, r and s) over `content`. `chain`: certificates in PEM, the signer's first and the
    root last, whose hash must be `root`; `now` in seconds since the epoch.

    Raises SignatureInvalid.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA384

    try:
        key = signer_key(chain, root, signer, now)
    except ChainInvalid as error:
        raise SignatureInvalid(str(error)) from None
    try:
        raw = base64.b64decode(signature, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignatureInvalid("the signature is not base64url") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SignatureInvalid("the signer's key is not one of P-384")
    if len(raw) != 2 * _HALF:
        raise SignatureInvalid(f"the signature has {len(raw)} bytes, not {2 * _HALF}")
    numbers = int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big")
    try:
        key.verify(encode_dss_signature(*numbers), content, ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise SignatureInvalid("the signature does not fit what is there") from None


def _whole_numbers(value: Any) -> None:
    if isinstance(value, float):
        raise SignatureInvalid("a record holds a number that is not whole, so what was signed cannot be told")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _whole_numbers(item)

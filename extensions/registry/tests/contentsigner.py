"""A signer of Kinto collections for tests: a root, an issuer, a signer's certificate, and what it signs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA224, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_790_000_000.0
NAME = "models.content-signature.example"


@dataclass
class Chain:
    """What a signer's certificates are like; the defaults are good."""

    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    name: str = NAME
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING
    begins: int = -30
    ends: int = 60
    issuer_is_ca: bool = True
    path_length: int | None = 0
    permitted: str = ".content-signature.example"
    hash: SHA224 | SHA384 = field(default_factory=SHA384)
    strange: bool = False
    forged: bool = False

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(self.curve)
        root_key, issuer_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
        root = self._certificate("root", root_key, "root", root_key, -3000, 3000, self._ca(True, None))
        limits = x509.NameConstraints([x509.DNSName(self.permitted)], None)
        issuer = self._certificate(
            "issuer", issuer_key, "root", root_key, -300, 300, [*self._ca(self.issuer_is_ca, self.path_length), limits]
        )
        own: list[x509.ExtensionType] = [
            x509.SubjectAlternativeName([x509.DNSName(self.name)]),
            x509.ExtendedKeyUsage([self.usage]),
        ]
        if self.strange:
            own.append(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"))
        by = ec.generate_private_key(ec.SECP384R1()) if self.forged else issuer_key
        leaf = self._certificate("signer", self.key, "issuer", by, self.begins, self.ends, own, self.hash)
        self.pem = b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, issuer, root))
        self.root = hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()

    def sign(self, content: bytes) -> str:
        r, s = decode_dss_signature(self.key.sign(content, ec.ECDSA(SHA384())))
        return base64.urlsafe_b64encode(r.to_bytes(48, "big") + s.to_bytes(48, "big")).decode()

    def _ca(self, ca: bool, length: int | None) -> list[x509.ExtensionType]:
        return [
            x509.BasicConstraints(ca, length if ca else None),
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
        ]

    def _certificate(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        begins: int,
        ends: int,
        extensions: Sequence[x509.ExtensionType],
        algorithm: SHA224 | SHA384 | None = None,
    ) -> x509.Certificate:
        now = datetime.fromtimestamp(NOW, UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begins))
            .not_valid_after(now + timedelta(days=ends))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=not isinstance(extension, x509.SubjectAlternativeName))
        return builder.sign(issuer_key, algorithm or SHA384())


def signed_over(records: list[dict[str, Any]], timestamp: int) -> bytes:
    """What a Remote Settings server signs, written out here once more."""
    data = sorted((one for one in records if not one.get("deleted")), key=lambda one: str(one["id"]))
    text = json.dumps({"data": data, "last_modified": str(timestamp)}, sort_keys=True, separators=(",", ":"))
    return b"Content-Signature:\x00" + text.encode("ascii")

"""Whether a chain of certificates leads from a signer to a pinned root, as the checks of RFC 5280 §6 have it.

Not `cryptography.x509.verification`: it refuses the constraints on names that Mozilla's issuers have (a DNS name with a
leading dot), and knows no signers of code. The signatures themselves are that library's to check. The chain is given
in its order, so that no path is searched; nothing is fetched, and nothing revoked is known here: the signers' short
lives stand in for that.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["ChainInvalid", "signer_key"]

_MAX = 8
_HASHES = frozenset({"sha256", "sha384", "sha512"})
T = TypeVar("T", bound="x509.ExtensionType")


class ChainInvalid(ValueError):
    """The chain does not show that the signer is to be believed; the text says why."""


def signer_key(chain: bytes, root: bytes, signer: str, now: float) -> Any:
    """The public key of the first certificate of `chain` (PEM; the root last, with the SHA-256 `root`), which is valid
    `now`, is for signing code, and bears the DNS name `signer`.

    Raises ChainInvalid.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        certificates = x509.load_pem_x509_certificates(chain)
        if not 2 <= len(certificates) <= _MAX:
            raise ChainInvalid(f"the signer's chain has {len(certificates)} certificates")
        if hashlib.sha256(certificates[-1].public_bytes(Encoding.DER)).digest() != root:
            raise ChainInvalid("the signer's chain does not lead to the root that is trusted")
        for depth, certificate in enumerate(certificates):
            _check(certificate, depth, now)
        for issued, issuer in zip(certificates, [*certificates[1:], certificates[-1]], strict=True):
            _check_issued(issued, issuer)
        names = _names(certificates[0])
        if signer.lower() not in names:
            raise ChainInvalid(f"it is signed by somebody other than {signer}")
        for certificate in certificates[1:]:
            _check_names(certificate, names)
        return certificates[0].public_key()
    except ChainInvalid:
        raise
    except (
        ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType
    ) as error:  # fmt: skip
        raise ChainInvalid(f"the signer's chain cannot be read ({type(error).__name__})") from None


def _check(certificate: x509.Certificate, depth: int, now: float) -> None:
    """One certificate by itself. `depth`: how many it has issued below it; 0 is the signer's."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

    if not certificate.not_valid_before_utc <= datetime.fromtimestamp(now, UTC) <= certificate.not_valid_after_utc:
        raise ChainInvalid("a certificate of the signer's chain is not valid now")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        raise ChainInvalid("a certificate of the signer's chain is signed with a weak hash")
    known = (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
    if any(extension.critical and extension.oid not in known for extension in certificate.extensions):
        raise ChainInvalid("a certificate of the signer's chain has a condition that is not known here")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if ExtendedKeyUsageOID.CODE_SIGNING not in (purposes or ()) and (purposes is not None or depth == 0):
        raise ChainInvalid("a certificate of the signer's chain is not for signing code")
    usage = _extension(certificate, x509.KeyUsage)
    if depth == 0:
        if usage is not None and not usage.digital_signature:
            raise ChainInvalid("the signer's certificate is not for signatures")
        return
    basic = _extension(certificate, x509.BasicConstraints)
    may = basic is not None and basic.ca and (usage is None or usage.key_cert_sign)
    if not may or basic is None or (basic.path_length is not None and basic.path_length < depth - 1):
        raise ChainInvalid("a certificate of the signer's chain may not have issued the one before it")


def _check_issued(issued: x509.Certificate, issuer: x509.Certificate) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise ChainInvalid("a certificate of the signer's chain was not issued by the next one") from None


def _check_names(issuer: x509.Certificate, names: list[str]) -> None:
    """Hold the signer's names against what an issuer may issue for."""
    from cryptography import x509

    constraints = _extension(issuer, x509.NameConstraints)
    if constraints is None:
        return
    permitted = [tree.value.lower() for tree in constraints.permitted_subtrees or [] if isinstance(tree, x509.DNSName)]
    excluded = [tree.value.lower() for tree in constraints.excluded_subtrees or [] if isinstance(tree, x509.DNSName)]
    for name in names:
        if (permitted and not any(_within(name, tree) for tree in permitted)) or any(
            _within(name, tree) for tree in excluded
        ):
            raise ChainInvalid("the signer has a name that its issuer may not give")


def _within(name: str, tree: str) -> bool:
    """Whether a DNS name is of a subtree: `.example.org` has what is below it, `example.org` itself too."""
    bare = tree.removeprefix(".")
    return not bare or name.endswith(f".{bare}") or (name == bare and tree == bare)


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    alternatives = _extension(certificate, x509.SubjectAlternativeName)
    return [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)] if alternatives else []


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

"""A list as it comes over the network: `{"version": 1, "models": [ModelRecord…]}`, read strictly.

A record that does not hold what it must is left out and named; a document without a single good record is refused.
Fields that are unknown are ignored, so that lists may grow. What a list says about its own trustworthiness counts for
nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from jan_core.types import DownloadFile, ModelRecord

from .shapes import Skipped

__all__ = ["MAX_BYTES", "Document", "DocumentError", "read"]

MAX_BYTES = 8 << 20
MAX_MODELS = 20_000
_MAX_EXTRA = 16_384
_MAX_SKIPPED = 50
_ID = re.compile(r"[a-z0-9](?:[a-z0-9._:@+/-]{0,126}[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+() -]{0,198}[A-Za-z0-9_)])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class DocumentError(ValueError):
    """The document as a whole cannot be used."""


class Document(Struct):
    """A list that was read. `digest` is the SHA-256 of the document's bytes; `skipped` are at most 50 of `refused`."""

    models: list[ModelRecord]
    skipped: list[Skipped]
    refused: int
    digest: str


class _Envelope(Struct):
    version: int
    models: list[msgspec.Raw]


class _Identity(Struct):
    id: str = ""


_envelope = msgspec.json.Decoder(_Envelope)
_record = msgspec.json.Decoder(ModelRecord)
_identity = msgspec.json.Decoder(_Identity)


def read(body: bytes, source: str) -> Document:
    """Read a document that came from `source`. Raises DocumentError with the reason."""
    if len(body) > MAX_BYTES:
        raise DocumentError(f"the list is larger than {MAX_BYTES} bytes")
    try:
        envelope = _envelope.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError(f"not a list in our form: {error}") from None
    if envelope.version != 1:
        raise DocumentError(f"the list has version {envelope.version}; this program reads version 1")
    if not 0 < len(envelope.models) <= MAX_MODELS:
        raise DocumentError(f"the list has {len(envelope.models)} models, not 1 to {MAX_MODELS}")
    models: dict[str, ModelRecord] = {}
    skipped: list[Skipped] = []
    for index, raw in enumerate(envelope.models):
        try:
            model = _checked(_record.decode(raw), source)
            if model.id in models:
                raise ValueError("another record has the same id")
            models[model.id] = model
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            skipped.append(Skipped(index, _id_of(raw), str(error)[:200]))
    if not models:
        raise DocumentError(f"none of the {len(skipped)} records can be used; the first: {skipped[0].reason}")
    digest = hashlib.sha256(body).hexdigest()
    return Document(list(models.values()), skipped[:_MAX_SKIPPED], len(skipped), digest)


def _id_of(raw: msgspec.Raw) -> str:
    try:
        return "".join(c for c in _identity.decode(raw).id[:100] if c.isprintable())
    except (ValueError, RecursionError):
        return ""


def _checked(model: ModelRecord, source: str) -> ModelRecord:
    """The record with the fields that are ours to say. Raises ValueError with what is wrong."""
    if not _ID.fullmatch(model.id) or ".." in model.id or "//" in model.id:
        raise ValueError("id: must be 1 to 128 lower-case letters, digits and . _ : @ + / -")
    _line("name", model.name, 200, required=True)
    _line("publisher", model.publisher, 200)
    _line("license", model.license, 200)
    _text("description", model.description, 4000)
    for number, what in ((model.parameters, "parameters"), (model.context_length, "context_length")):
        _number(what, number)
    if len(model.tags) > 64:
        raise ValueError("tags: more than 64")
    for tag in model.tags:
        _line("tags", tag, 64, required=True)
    if len(model.files) > 512:
        raise ValueError("files: more than 512")
    for file in model.files:
        _check_file(file)
    if len({file.name.lower() for file in model.files}) < len(model.files):
        raise ValueError("files: two have the same name")
    if len(msgspec.json.encode(model.extra)) > _MAX_EXTRA:
        raise ValueError(f"extra: larger than {_MAX_EXTRA} bytes")
    return msgspec.structs.replace(model, source=source, verification="unverified")


def _check_file(file: DownloadFile) -> None:
    if not _FILE.fullmatch(file.name):
        raise ValueError("files: a name must be a plain file name")
    if file.sha256 and not _SHA256.fullmatch(file.sha256):
        raise ValueError("files: a sha256 must be 64 lower-case hexadecimal digits")
    _number("files: size", file.size)
    if file.url:
        _check_url(file.url)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("files: a url cannot be read") from None
    host = parts.hostname or ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= 4096 and port != 0
    if not (safe and clean and host and parts.username is None and parts.password is None):
        raise ValueError("files: a url must be https, without credentials in it")


def _number(what: str, value: int) -> None:
    if not 0 <= value < 2**53:
        raise ValueError(f"{what}: must be 0 or more, and exact in JSON")


def _line(what: str, value: str, limit: int, *, required: bool = False) -> None:
    if required and not value.strip():
        raise ValueError(f"{what}: must not be empty")
    _text(what, value, limit)
    if "\n" in value or "\t" in value:
        raise ValueError(f"{what}: must be one line")


def _text(what: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise ValueError(f"{what}: longer than {limit} characters")
    if any(c in _BIDI or (unicodedata.category(c) == "Cc" and c not in "\n\t") for c in value):
        raise ValueError(f"{what}: has control characters")

"""What a model's record must hold beyond its types. Raises ValueError with field and reason."""

from __future__ import annotations

import re

from . import fields
from .record import File, FileSource, Pieces, Record, Variant

__all__ = ["model"]

_FILE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+() -]{0,198}[A-Za-z0-9_)])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}")


def model(it: Record) -> None:
    fields.identifier("id", it.id)
    if it.schema != 1:
        raise ValueError("schema: this program reads 1")
    fields.line("name", it.name, 200, required=True)
    fields.text("description", it.description, 4000)
    for what in ("publisher", "license", "arch"):
        fields.line(what, getattr(it, what), 200)
    if it.gated not in ("", "auto", "manual"):
        raise ValueError("gated: must be auto or manual, or absent")
    fields.whole("params", it.params)
    fields.whole("ctx", it.ctx)
    for what in ("modalities", "caps", "tags"):
        fields.few(what, getattr(it, what), 64)
        for number, text in enumerate(getattr(it, what)):
            fields.line(f"{what}[{number}]", text, 64, required=True)
    fields.few("files", it.files, 2048)
    for number, file in enumerate(it.files):
        _file(f"files[{number}]", file)
    fields.distinct("files", "path", (file.path.lower() for file in it.files))
    fields.few("variants", it.variants, 512)
    for number, variant in enumerate(it.variants):
        _variant(f"variants[{number}]", variant, len(it.files))
    fields.distinct("variants", "id", (variant.id for variant in it.variants))
    fields.few("publisher_sig", it.publisher_sig, 16)
    for key, text in it.publisher_sig.items():
        fields.line("publisher_sig", key, 64, required=True)
        fields.line(f"publisher_sig.{key}", text, 4096)
        if key == "url":
            fields.url("publisher_sig.url", text)
    if it.requires:
        fields.few("requires.engine", it.requires.engine, 32)
        if it.requires.app:
            fields.version_range("requires.app", it.requires.app)
        for key, text in it.requires.engine.items():
            fields.part("requires.engine", key)
            fields.version_range(f"requires.engine.{key}", text)
    fields.target("target", it.target)
    if it.deprecated:
        fields.date("deprecated.since", it.deprecated.since)
        if it.deprecated.replaced_by:
            fields.identifier("deprecated.replaced_by", it.deprecated.replaced_by)
        fields.line("deprecated.reason", it.deprecated.reason, 500)


def _file(where: str, it: File) -> None:
    if not _FILE.fullmatch(it.path) or _DEVICE.fullmatch(it.path):
        raise ValueError(f"{where}.path: must be a plain file name")
    fields.line(f"{where}.role", it.role, 32, required=True)
    fields.whole(f"{where}.size", it.size)
    if it.sha256:
        fields.sha256(f"{where}.sha256", it.sha256)
    if it.pieces:
        _pieces(f"{where}.pieces", it.pieces, it.size)
    fields.few(f"{where}.sources", it.sources, 32)
    for number, source in enumerate(it.sources):
        _source(f"{where}.sources[{number}]", source)


def _pieces(where: str, it: Pieces, size: int) -> None:
    if not 1 << 16 <= it.len <= 1 << 30:
        raise ValueError(f"{where}.len: must be 64 KiB to 1 GiB")
    if size == 0 or it.n != -(-size // it.len):
        raise ValueError(f"{where}.n: must be the file's size in pieces of {it.len} bytes")
    fields.sha256(f"{where}.sha256", it.sha256)
    if it.target != f"pieces/{it.sha256}.bin":
        raise ValueError(f"{where}.target: must be pieces/<its sha256>.bin")


def _source(where: str, it: FileSource) -> None:
    fields.part(f"{where}.kind", it.kind)
    if it.kind in ("hf", "modelscope"):
        fields.fits(f"{where}.repo", it.repo, _REPOSITORY, "must be a repository, owner/name")
        fields.fits(f"{where}.rev", it.rev, _REVISION, "must be a commit, or a branch or tag")
        parts = it.path.split("/")
        if "\\" in it.path or ".." in it.rev or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{where}.path: must be a path inside the repository")
    if it.kind == "oci":
        fields.fits(f"{where}.ref", it.ref, fields.PRINTABLE, "must be a reference")
    if it.kind == "https" or it.url:
        fields.url(f"{where}.url", it.url)
    for what in ("repo", "rev", "path", "ref", "xet"):
        fields.line(f"{where}.{what}", getattr(it, what), 1024)


def _variant(where: str, it: Variant, files: int) -> None:
    fields.part(f"{where}.id", it.id)
    fields.line(f"{where}.format", it.format, 32, required=True)
    fields.line(f"{where}.quant", it.quant, 64)
    fields.whole(f"{where}.ram_bytes", it.ram_bytes)
    fields.whole(f"{where}.vram_bytes", it.vram_bytes)
    if not it.files or len(set(it.files)) < len(it.files):
        raise ValueError(f"{where}.files: must name at least one file, and none twice")
    if not all(0 <= index < files for index in it.files):
        raise ValueError(f"{where}.files: must be places in the list of {files} files, counted from 0")

"""The first bytes of a model file: is this one at all, or a page that says why there is none?

A look at the head, so that a wrong file is known after its first piece and not after forty gigabytes. It proves nothing
of the rest: that is what hashes are for. Layout: the GGUF specification (ggml's docs/gguf.md), `GGUF`, version (u32),
tensors (u64), metadata entries (u64).
"""

from __future__ import annotations

import struct

__all__ = ["HEAD", "head_problem"]

HEAD = 512
"""Bytes of a file that are enough to judge it by; fewer only when the file has no more."""

_FIXED = 24
_VERSIONS = (2, 3)
_MOST_TENSORS = 1 << 24
_MOST_ENTRIES = 1 << 24
_SIGNATURES = (
    (b"version https://git-lfs.github.com/spec/", "it is a Git LFS pointer, a few lines that stand for the file"),
    (b"# xet version", "it is a Xet pointer, a few lines that stand for the file"),
    (b"PK\x03\x04", "it is a zip archive"),
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard"),
    (b"lmgg", "it has the GGML format of before GGUF, which is no longer read"),
    (b"fmgg", "it has the GGMF format of before GGUF, which is no longer read"),
    (b"tjgg", "it has the GGJT format of before GGUF, which is no longer read"),
)


def head_problem(name: str, head: bytes) -> str:
    """Why a file of this name that begins with `head` (`HEAD` bytes, or all there are) cannot be what its name says; ""
    when it can.

    Only names that end in `.gguf` promise anything.
    """
    if not name.lower().endswith(".gguf"):
        return ""
    kind = _gguf_problem(head) if head.startswith(b"GGUF") else _named(head)
    return f"{name} is no model in the GGUF format: {kind}" if kind else ""


def _gguf_problem(head: bytes) -> str:
    if len(head) < _FIXED:
        return f"it ends after {len(head)} bytes"
    version, tensors, entries = struct.unpack_from("<IQQ", head, 4)
    swapped = int.from_bytes(head[4:8], "big")
    if version not in _VERSIONS and swapped in _VERSIONS:
        return "it is the big-endian variant, made for other machines"
    if version not in _VERSIONS:
        return f"it says that it has version {version} of the format, and 2 and 3 are known"
    if tensors > _MOST_TENSORS or entries > _MOST_ENTRIES:
        return f"it claims {tensors} tensors and {entries} entries of metadata, which cannot be"
    if not tensors and not entries:
        return "it has neither tensors nor metadata"
    return ""


def _named(head: bytes) -> str:
    """What it is instead, as far as its beginning tells."""
    if not head:
        return "it is empty"
    for signature, meaning in _SIGNATURES:
        if head.startswith(signature):
            return meaning
    if not head.strip(b"\0"):
        return "it begins with nothing but zeroes"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")):
        return "the server sent a web page (HTML)"
    if text.startswith(b"<"):
        return "the server sent an XML document"
    if text.startswith((b"{", b"[")):
        return "the server sent a JSON document"
    return "it does not begin with GGUF"

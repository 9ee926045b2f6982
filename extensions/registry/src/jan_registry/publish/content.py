"""The records of one collection, as they are published: by id, each as canonical bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence

import msgspec

from ..collections import canonical, digest, snapshot
from .errors import PublishInvalid

__all__ = ["Content", "pack", "unpack"]


class _Snapshot(msgspec.Struct):
    records: list[msgspec.Raw]


class _Id(msgspec.Struct):
    id: str


class Content:
    """`records`: id -> canonical bytes, in the order of ids. `snapshot`: the whole; `sha256`: of that, in hex."""

    def __init__(self, records: Mapping[str, bytes]) -> None:
        self.records = {id: records[id] for id in sorted(records)}  # by code points: the order of UTF-8 bytes, too
        self.snapshot = snapshot(self.records.values())
        self.sha256 = digest(self.snapshot)

    @classmethod
    def of(cls, name: str, records: Sequence[bytes], before: Content | None = None) -> Content:
        """What somebody wants to publish. Raises PublishInvalid for a record that is not canonical, or an id twice."""
        known = before.records if before else {}
        found: dict[str, bytes] = {}
        for record in records:
            try:
                id = msgspec.json.decode(record, type=_Id).id
                if known.get(id) != record and canonical(json.loads(record)) != record:
                    raise ValueError("it is not in canonical form")
            except ValueError as error:
                start = record[:80].decode(errors="replace")
                raise PublishInvalid(f"A record of {name} is unusable ({error}): {start}", reason=str(error)) from error
            if id in found:
                raise PublishInvalid(f"{name} has two records with the id {id}.", reason="duplicate id")
            found[id] = record
        return cls(found)

    @classmethod
    def read(cls, content: bytes) -> Content:
        """From a canonical snapshot. Raises ValueError."""
        raw = [bytes(record) for record in msgspec.json.decode(content, type=_Snapshot).records]
        return cls({msgspec.json.decode(record, type=_Id).id: record for record in raw})


def pack(content: bytes, level: int = 9) -> bytes:
    """Gzip (RFC 1952) without a time in it: the same content is the same file."""
    return gzip.compress(content, level, mtime=0)


def unpack(content: bytes, limit: int) -> bytes:
    """Undo `pack`; at most `limit` bytes. Raises ValueError."""
    try:
        inflate = zlib.decompressobj(wbits=31)
        plain = inflate.decompress(content, limit + 1)
    except zlib.error as error:
        raise ValueError(f"it is not gzip: {error}") from error
    if len(plain) > limit or not inflate.eof:
        raise ValueError("it is longer than it may be, or cut off")
    return plain

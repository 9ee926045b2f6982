"""What comes over the wire for a collection, as rows: a whole snapshot, or the changes between two of them.

Pure: bytes in, rows out. A snapshot was held against its signed hash before it comes here. A delta was not, and is not
believed: whoever applies it compares the hash of what comes out.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise

import msgspec
from msgspec import Raw, Struct, field

from .fetching import TooLarge

__all__ = ["Delta", "Row", "read_delta", "read_snapshot", "unpack"]

Row = tuple[str, bytes]
"""A record's id, and its canonical bytes."""

_GZIP = b"\x1f\x8b"
_START, _END = b'{"records":[', b"]}"


@dataclass(frozen=True)
class Delta:
    upsert: list[Row]
    delete: list[str]


class _Snapshot(Struct):
    records: list[Raw]


class _Delta(Struct):
    collection: str
    start: int = field(name="from")
    to: int
    upsert: list[Raw]
    delete: list[str]


class _Identity(Struct):
    id: str


def unpack(body: bytes, limit: int) -> bytes:
    """Inflate gzip, also where a server has packed it once more, or leave plain bytes as they are.

    Raises TooLarge when more than `limit` bytes come out, ValueError when it is no whole gzip file.
    """
    most = limit + limit // 1000 + 1024  # what was packed twice is for a moment a little more than it holds
    for _ in range(2):
        if not body.startswith(_GZIP):
            break
        inflate = zlib.decompressobj(wbits=31)
        try:
            body = inflate.decompress(body, most + 1)
        except zlib.error as error:
            raise ValueError(f"not gzip: {error}") from None
        if len(body) > most:
            break
        if not inflate.eof or inflate.unused_data:
            raise ValueError("not one whole gzip file")
    if len(body) > limit:
        raise TooLarge(f"it inflates to more than {limit} bytes")
    return body


def read_snapshot(content: bytes) -> list[Row]:
    """The rows of a canonical snapshot. Raises ValueError when it is none: every byte of it must be in its place."""
    try:
        records = msgspec.json.decode(content, type=_Snapshot).records
        rows = [(_id(raw), bytes(raw)) for raw in records]
        changed = next((id for id, data in rows if _canonical(data) != data), None)
    except RecursionError:
        raise ValueError("a record is nested too deeply") from None
    if changed is not None:
        raise ValueError(f"the record {changed!r} is not canonical")
    # With the right start and end, and no byte more than the records and a comma between them, nothing else is in it.
    length = len(_START) + sum(len(data) for _, data in rows) + max(0, len(rows) - 1) + len(_END)
    if length != len(content) or not (content.startswith(_START) and content.endswith(_END)):
        raise ValueError("it is not canonical")
    if any(left[0] >= right[0] for left, right in pairwise(rows)):
        raise ValueError("its records are not in the order of their ids, or two have the same id")
    return rows


def read_delta(content: bytes, collection: str, start: int, to: int) -> Delta:
    """The changes from one state to another. Raises ValueError when it is something else."""
    try:
        delta = msgspec.json.decode(content, type=_Delta)
        if (delta.collection, delta.start, delta.to) != (collection, start, to):
            raise ValueError("it is a delta between other states")
        return Delta([(_id(raw), _canonical(raw)) for raw in delta.upsert], delta.delete)
    except RecursionError:
        raise ValueError("a record is nested too deeply") from None


def _id(raw: Raw | bytes) -> str:
    return msgspec.json.decode(raw, type=_Identity).id


def _canonical(raw: Raw | bytes) -> bytes:
    """As `collections.canonical` writes it, many times faster; the tests hold the two against each other."""
    return msgspec.json.encode(msgspec.json.decode(raw), order="sorted")

"""Piece lists: what they say is what the file has, piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from jan_registry.publish.pieces import PIECE, split, store

from jan_core import StorageError


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 12345])
def test_every_piece_has_its_hash_and_the_last_is_what_is_left_over(tmp_path: Path, size: int) -> None:
    content = hashlib.shake_256(b"model").digest(size)
    (tmp_path / "model.gguf").write_bytes(content)
    seen: list[tuple[int, int]] = []
    found = split(tmp_path / "model.gguf", lambda done, total: seen.append((done, total)))
    expected = [hashlib.sha256(content[at : at + PIECE]).digest() for at in range(0, size, PIECE)]
    assert found.content == b"".join(expected)
    assert (found.size, found.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert (found.pieces.len, found.pieces.n) == (8 * 2**20, len(expected))
    assert found.pieces.sha256 == hashlib.sha256(found.content).hexdigest()
    assert found.pieces.target == f"pieces/{found.pieces.sha256}.bin"
    assert seen == [(min(number * PIECE, size), size) for number in range(1, len(expected) + 1)]
    assert store(found, tmp_path / "pieces").read_bytes() == found.content


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.gguf"):
        split(tmp_path / "none.gguf")

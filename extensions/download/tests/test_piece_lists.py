"""Lists of piece hashes: what is believed, and what is kept."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.errors import BadSource, SourceNotFound
from jan_download.integrity.piece_lists import PieceHashes, load, note, stored, sweep
from jan_download.network.errors import Unreachable
from jan_download.network.network import Network
from jan_download.records import Job
from jan_download.settings import DownloadSettings
from jan_download.storage.store import Store

from jan_core.types import DownloadSource, PieceList

from .faultserver import FaultServer

LENGTH = 64 << 10
CONTENT = bytes(range(251)) * 1000
HASHES = b"".join(hashlib.sha256(CONTENT[at : at + LENGTH]).digest() for at in range(0, len(CONTENT), LENGTH))
COUNT = len(HASHES) // 32


def piece_list(content: bytes = HASHES, url: str = "http://127.0.0.1:1/pieces.bin", **changes: Any) -> PieceList:
    fields: dict[str, Any] = {
        "length": LENGTH,
        "count": COUNT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "url": url,
    }
    return PieceList(**fields | changes)


class Hub:
    """Answers as a network does; counts what it is asked."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, 0

    def fetch(self, source: DownloadSource, limit: int) -> bytes:
        self.asked += 1
        assert limit == 32 * COUNT
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def got(hub: Hub, store: Store, pieces: PieceList | None = None, size: int = len(CONTENT)) -> Any:
    return load(pieces or piece_list(), size, hub, store)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def test_a_list_is_fetched_once_and_kept(store: Store) -> None:
    hub = Hub(HASHES)
    for _ in range(2):
        hashes = got(hub, store)
        assert (hashes.length, hashes.count) == (LENGTH, COUNT)
        assert [hashes.of(index) for index in range(COUNT)] == [HASHES[n : n + 32] for n in range(0, len(HASHES), 32)]
    assert hub.asked == 1
    assert [path.name for path in (store.root / "pieces").iterdir()] == [f"{piece_list().sha256}.bin"]
    assert stored(piece_list(), len(CONTENT), store) == hashes


@pytest.mark.parametrize("index", [-1, COUNT])
def test_there_is_no_hash_of_a_piece_that_is_none(store: Store, index: int) -> None:
    with pytest.raises(IndexError):
        got(Hub(HASHES), store).of(index)


def test_a_list_that_was_damaged_here_is_fetched_again(store: Store) -> None:
    got(Hub(HASHES), store)
    (store.root / "pieces" / f"{piece_list().sha256}.bin").write_bytes(HASHES[:-1] + b"!")
    assert stored(piece_list(), len(CONTENT), store) is None
    assert got(Hub(HASHES), store).hashes == HASHES
    assert stored(piece_list(), len(CONTENT), store) is not None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HASHES[:-32], "has 96 bytes, not the 128"),
        (HASHES[:-1] + b"!", "its own SHA-256 differs"),
        (b"<html>", "has 6 bytes"),
        (SourceNotFound("there is no such file"), "there is no such file"),
        (Unreachable("the connection broke"), "the connection broke"),
    ],
)
def test_a_list_that_cannot_be_had_or_is_another_is_refused_with_its_reason(
    store: Store, answer: bytes | Exception, words: str
) -> None:
    with pytest.raises(BadSource, match=words):
        got(Hub(answer), store)
    assert not (store.root / "pieces").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": LENGTH - 1}, "pieces have"),
        ({"length": (1 << 30) + 1}, "pieces have"),
        ({"length": 0}, "pieces have"),
        ({"length": -8}, "pieces have"),
        ({"count": COUNT + 1}, f"there are {COUNT + 1}, and a file of 251000 bytes has {COUNT}"),
        ({"count": 0}, "there are 0"),
        ({"sha256": "../../etc/passwd"}, "the SHA-256 of the list is none"),
        ({"sha256": "A" * 64}, "the SHA-256 of the list is none"),
    ],
)
def test_a_list_that_cannot_be_that_of_the_file_is_not_asked_for(
    store: Store, changes: dict[str, Any], words: str
) -> None:
    hub = Hub(HASHES)
    with pytest.raises(BadSource, match=words):
        got(hub, store, piece_list(**changes))
    assert hub.asked == 0


@pytest.mark.parametrize(("size", "words"), [(0, "not known"), (1 << 61, "there are")])
def test_the_size_of_the_file_has_to_fit(store: Store, size: int, words: str) -> None:
    with pytest.raises(BadSource, match=words):
        got(Hub(HASHES), store, size=size)


def test_a_list_of_too_many_pieces_is_not_asked_for(store: Store) -> None:
    count = (64 << 20) // 32 + 1
    with pytest.raises(BadSource, match="more than"):
        got(Hub(HASHES), store, piece_list(count=count), size=count * LENGTH)


def test_a_folder_that_cannot_be_written_costs_only_another_fetch(store: Store) -> None:
    store.root.mkdir()
    (store.root / "pieces").write_bytes(b"in the way")
    hub = Hub(HASHES)
    assert got(hub, store).hashes == got(hub, store).hashes == HASHES
    assert hub.asked == 2


@given(st.integers(), st.integers(), st.text(max_size=70), st.integers(-5, 1 << 62))
def test_any_claim_is_believed_or_refused_in_words(length: int, count: int, sha256: str, size: int) -> None:
    store = Store(Path("/nowhere"))
    with contextlib.suppress(BadSource):
        assert stored(PieceList(length, count, sha256, ""), size, store) is None


def test_what_is_kept_for_no_job_any_more_is_removed(store: Store) -> None:
    sweep([], store)
    got(Hub(HASHES), store)
    note("1" * 64, PieceHashes(LENGTH, HASHES), store)
    note("2" * 64, PieceHashes(LENGTH, HASHES), store)
    fields: dict[str, Any] = {"name": "n", "url": "", "size": 0, "destination": "d", "partial": "p"}
    listed = Job(id="1", sha256="3" * 64, pieces=msgspec.json.encode(piece_list()).decode(), **fields)
    unhashed = Job(id="2", sha256="", actual="1" * 64, **fields)
    sweep([listed, unhashed], store)
    kept = sorted(path.name for path in (store.root / "pieces").iterdir())
    assert kept == sorted([f"{piece_list().sha256}.bin", f"of-{'1' * 64}.bin"])


def test_a_list_comes_over_http(store: Store, server: FaultServer) -> None:
    network = Network(DownloadSettings(), {})
    try:
        with pytest.raises(BadSource, match="132 bytes where 128"):
            load(piece_list(url=server.serve("/long", HASHES + b"more")), len(CONTENT), network, store)
        with pytest.raises(BadSource, match="cannot be had"):
            load(piece_list(url=server.url("/missing")), len(CONTENT), network, store)
        assert load(piece_list(url=server.serve("/list", HASHES)), len(CONTENT), network, store).hashes == HASHES
    finally:
        network.close()

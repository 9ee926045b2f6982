"""What a run does about servers without ranges, lengths or validators, and about files that change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jan_core.types import PieceList

from .desk import DATA, LENGTH, OTHER, SHA256, SIZE, Desk, hashes_of
from .faults import (
    Chunked,
    Drop,
    Endless,
    ETag,
    NoLength,
    NoRanges,
    Other,
)
from .faultserver import FaultServer


def test_without_ranges_one_connection_brings_it_all(desk: Desk, server: FaultServer) -> None:
    job = desk.fetch(server.serve("/f", DATA, NoRanges()))
    assert desk.content() == DATA
    assert job.discarded == 0
    assert server.sent("/f") < 2 * SIZE


def test_a_source_without_ranges_goes_on_behind_what_is_there(desk: Desk, server: FaultServer) -> None:
    job = desk.fetch(server.serve("/f", DATA, NoRanges(), Drop(at=4_000_000).only(0), Drop(at=5_000_000).only(1)))
    assert desk.content() == DATA
    assert job.discarded == 0


def test_a_source_without_ranges_works_beside_one_with_them(desk: Desk, server: FaultServer, others: Any) -> None:
    server.pace.rate = others[0].pace.rate = 10_000_000
    desk.fetch(server.serve("/f", DATA, NoRanges()), others[0].serve("/f", DATA), hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert others[0].sent("/f") > LENGTH


@pytest.mark.parametrize("fault", [Chunked(), NoLength()])
@pytest.mark.parametrize("hashed", [True, False])
def test_a_body_without_a_known_end_is_taken_to_its_end(
    desk: Desk, server: FaultServer, fault: Any, hashed: bool
) -> None:
    job = desk.fetch(server.serve("/f", DATA, NoRanges(), fault), size=0, sha256=SHA256 if hashed else "")
    assert desk.content() == DATA
    assert (job.total, job.high) == (SIZE, SIZE)


def test_a_body_without_an_end_is_cut_where_the_file_ends(desk: Desk, server: FaultServer) -> None:
    assert desk.fetch(server.serve("/f", DATA, NoRanges(), Endless(), NoLength())).state == "completed"
    assert desk.content() == DATA


def test_a_change_in_mid_file_begins_anew_and_says_so(desk: Desk, server: FaultServer) -> None:
    faults = [Drop(at=3_000_000).only(0), Other(OTHER, '"v2"').since(1)]
    job = desk.fetch(server.serve("/f", DATA, *faults), sha256="", size=0)
    assert desk.content() == OTHER
    assert job.discarded == 3_000_000
    notes = [entry for entry in desk.journal.history("dl-1") if entry.kind == "discarded"]
    assert notes[0].data["bytes"] == 3_000_000
    assert "another version" in notes[0].data["reason"]


def test_a_change_in_mid_file_keeps_the_pieces_that_are_proven(desk: Desk, server: FaultServer) -> None:
    faults = [Drop(at=3_000_000).only(0), ETag('"v2"').since(1)]
    job = desk.fetch(server.serve("/f", DATA, *faults), hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert job.discarded == 0


def test_without_a_validator_nothing_is_glued_together(desk: Desk, server: FaultServer) -> None:
    faults = [ETag(""), Drop(at=3_000_000).only(0), Other(OTHER, "").since(1)]
    job = desk.fetch(server.serve("/f", DATA, *faults), sha256="")
    assert desk.content() == OTHER
    assert job.discarded == 3_000_000
    assert server.most_connections == 1


@pytest.mark.parametrize(("etag", "used"), [('"65f0c1d2-5ff000"', True), ('"v1"', False)])
def test_without_a_hash_sources_must_have_the_same_version(
    desk: Desk, server: FaultServer, others: list[FaultServer], etag: str, used: bool
) -> None:
    server.pace.rate = 2_500_000
    urls = [
        server.serve("/f", DATA, etag=etag),
        others[0].serve("/f", OTHER, etag='"65f0c1d3-5ff000"'),
        others[1].serve("/f", DATA, etag=etag),
    ]
    desk.job(*urls, sha256="", pieces=msgspec.json.encode(PieceList(LENGTH, 24, "0" * 64, "http://nowhere/")).decode())
    desk.run(*urls)
    assert desk.content() == DATA
    figures = {each.id: each for each in desk.told[-1].sources}
    assert (figures[f"127.0.0.3:{others[1].port}"].bytes > 0) == used
    assert figures[f"127.0.0.2:{others[0].port}"].bytes == 0

"""What a run does about sources that break, stall, crawl, refuse or send wrong bytes."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec
import pytest
from jan_download.errors import BadSource, HashMismatch, SourceNotFound
from jan_download.network.errors import Unreachable

from jan_core.types import DownloadSource, PieceList

from .desk import DATA, LENGTH, OTHER, SHA256, SIZE, Desk, hashes_of, stopped_after
from .faults import (
    Drop,
    Flip,
    Hold,
    HtmlPage,
    Status,
    Trickle,
)
from .faultserver import FaultServer

# -- connections that break -------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_costs_nothing_that_had_come(desk: Desk, server: FaultServer) -> None:
    job = desk.fetch(server.serve("/f", DATA, Drop(at=3_000_000).only(0), Drop(after=1_000_000).only(1)))
    assert desk.content() == DATA
    assert job.discarded == 0
    firsts = [seen.range[0] for seen in server.requests if seen.range]
    assert max(first or 0 for first in firsts) > 1_000_000
    assert server.sent("/f") < SIZE + 1_500_000


@pytest.mark.parametrize("pieces", [True, False])
def test_a_run_goes_on_where_the_last_one_was_stopped(desk: Desk, server: FaultServer, pieces: bool) -> None:
    hashes = hashes_of(DATA) if pieces else None
    url = server.serve("/f", DATA, Hold(at=4_000_000))
    desk.job(url)
    stopped_after(desk, lambda: desk.told[-1].job.offset >= 3_500_000, url, hashes)
    before = len(server.requests)
    server.faults("/f")
    server.release()
    job = desk.run(url, hashes=hashes)
    assert desk.content() == DATA
    assert job.discarded == 0
    assert min(seen.range[0] or 0 for seen in server.requests[before:] if seen.range) >= 3_000_000


def test_a_source_that_is_down_is_tried_again_later(desk: Desk, server: FaultServer) -> None:
    with pytest.raises(Unreachable, match="503") as caught:
        desk.fetch(server.serve("/f", DATA, Status(503, retry_after=7)))
    assert caught.value.delay == 7
    assert not caught.value.offline


def test_another_source_is_used_when_one_is_down_or_has_nothing(desk: Desk, server: FaultServer, others: Any) -> None:
    urls = [server.serve("/f", DATA, Status(503)), others[0].serve("/f", b"", Status(404)), others[1].serve("/f", DATA)]
    assert desk.fetch(*urls).state == "completed"
    assert desk.content() == DATA


def test_further_sources_are_asked_for_when_none_is_left(desk: Desk, server: FaultServer, others: Any) -> None:
    desk.more = lambda: [DownloadSource(others[0].serve("/f", DATA))]
    assert desk.fetch(server.serve("/g", DATA, Status(404))).state == "completed"


def test_what_no_source_has_is_not_found(desk: Desk, server: FaultServer) -> None:
    with pytest.raises(SourceNotFound):
        desk.fetch(server.url("/nothing"))


def test_a_connection_that_stalls_is_given_up(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, Hold(after=500_000).only(0))
    desk.job(url)
    began = time.monotonic()
    assert desk.run(url, stall_timeout=0.5).state == "completed"
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("connections", [1, 8])
def test_a_file_of_one_piece_leaves_a_slow_source(
    desk: Desk, server: FaultServer, others: Any, connections: int
) -> None:
    urls = [server.serve("/f", DATA, Trickle(50_000)), others[0].serve("/f", DATA)]
    desk.job(*urls)
    began = time.monotonic()
    assert desk.run(*urls, max_connections=connections).discarded == 0
    assert time.monotonic() - began < 6
    assert server.sent("/f") + others[0].sent("/f") < 1.2 * SIZE


def test_pauses_between_failures_are_no_longer_than_they_should_be(desk: Desk, server: FaultServer) -> None:
    began = time.monotonic()
    desk.fetch(server.serve("/f", DATA, Drop(after=200_000)))
    assert desk.content() == DATA
    assert time.monotonic() - began < 0.15 * len(server.requests)


def test_another_request_is_made_when_the_only_connection_falls_silent(desk: Desk, server: FaultServer) -> None:
    url = server.serve("/f", DATA, Hold(at=SIZE - 10).times(1))
    desk.job(url)
    began = time.monotonic()
    assert desk.run(url, stall_timeout=60.0).discarded == 0
    assert time.monotonic() - began < 6
    assert [seen.range for seen in server.requests][1:] == [(SIZE - 10, SIZE - 1)]


def test_the_last_piece_of_a_stalled_source_is_taken_over(desk: Desk, server: FaultServer, others: Any) -> None:
    urls = [server.serve("/f", DATA, Hold(after=100_000)), others[0].serve("/f", DATA)]
    desk.job(*urls)
    began = time.monotonic()
    assert desk.run(*urls, hashes=hashes_of(DATA), stall_timeout=60.0).discarded == 0
    assert time.monotonic() - began < 6


# -- wrong bytes ------------------------------------------------------------------------------------------------------


def test_a_wrong_piece_alone_is_fetched_again_from_somebody_else(desk: Desk, server: FaultServer, others: Any) -> None:
    server.pace.rate = others[0].pace.rate = 20_000_000
    urls = [server.serve("/f", DATA, Flip(5 * LENGTH + 7)), others[0].serve("/f", DATA)]
    job = desk.fetch(*urls, hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert job.discarded in (0, LENGTH)
    assert server.sent("/f") + others[0].sent("/f") < SIZE + 10 * LENGTH


def test_a_source_of_wrong_bytes_is_quarantined_at_once(desk: Desk, server: FaultServer, others: Any) -> None:
    others[0].pace.rate = 10_000_000
    urls = [server.serve("/f", OTHER), others[0].serve("/f", DATA)]
    job = desk.fetch(*urls, hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert job.discarded == LENGTH
    assert desk.state("127.0.0.1") == "quarantined"


def test_one_flipped_bit_of_the_only_source_costs_one_piece(desk: Desk, server: FaultServer) -> None:
    job = desk.fetch(server.serve("/f", DATA, Flip(9 * LENGTH + 1).times(1)), hashes=hashes_of(DATA))
    assert desk.content() == DATA
    assert job.discarded == LENGTH


def test_the_only_source_of_wrong_bytes_ends_the_job_in_clear_words(desk: Desk, server: FaultServer) -> None:
    with pytest.raises(HashMismatch, match=r"127\.0\.0\.1.* sends wrong bytes: the SHA-256 of piece 9 differs"):
        desk.fetch(server.serve("/f", DATA, Flip(9 * LENGTH + 1)), hashes=hashes_of(DATA))
    job = desk.journal.get("dl-1")
    assert job is not None
    assert job.discarded == 3 * LENGTH
    assert job.offset >= SIZE - 15 * LENGTH


def test_a_whole_that_differs_is_thrown_away(desk: Desk, server: FaultServer) -> None:
    with pytest.raises(HashMismatch, match="thrown away") as caught:
        desk.fetch(server.serve("/f", OTHER))
    assert caught.value.data["actual"] == hashlib.sha256(OTHER).hexdigest()
    assert not desk.store.partial(SHA256).exists()
    assert not desk.store.final("model.gguf").exists()


def test_a_whole_that_differs_is_had_from_the_next_source(desk: Desk, server: FaultServer, others: Any) -> None:
    urls = [server.serve("/f", OTHER), others[0].serve("/f", DATA), others[1].serve("/f", OTHER)]
    job = desk.fetch(*urls)
    assert desk.content() == DATA
    assert job.discarded >= SIZE


def test_a_liar_among_the_sources_is_found_without_beginning_anew(desk: Desk, server: FaultServer, others: Any) -> None:
    server.pace.rate, others[0].pace.rate = 2_000_000, 8_000_000
    listed = msgspec.json.encode(PieceList(LENGTH, 24, "0" * 64, "http://nowhere/")).decode()
    urls = [server.serve("/f", OTHER), others[0].serve("/f", DATA)]
    job = desk.fetch(*urls, pieces=listed)
    assert desk.content() == DATA
    assert 0 < job.discarded < SIZE / 2
    assert others[0].sent("/f") < 1.2 * SIZE


def test_a_web_page_in_place_of_a_model_is_known_after_the_first_piece(desk: Desk, server: FaultServer) -> None:
    page = b"<!DOCTYPE html>" + bytes(SIZE - 15)
    job = desk.job(server.serve("/f", page), sha256="")
    with pytest.raises(BadSource, match="HTML"):
        desk.run(job.url)
    assert server.sent("/f") <= SIZE
    server.faults("/f", HtmlPage())
    with pytest.raises(BadSource, match="a file of"):
        desk.run(job.url)


# -- good company and bad ---------------------------------------------------------------------------------------------


def test_bad_sources_do_not_cost_a_good_one_its_speed(desk: Desk, server: FaultServer, others: Any) -> None:
    rate, size = 6_000_000, 18 << 20
    data = DATA[:24] + hashlib.shake_256(b"large").digest(size - 24)
    server.pace.rate = rate
    others[2].pace.rate = rate // 10
    urls = [
        others[0].serve("/f", data, Flip(100), Flip(1 << 20), Trickle(rate)),
        others[1].serve("/f", data, Hold(after=50_000)),
        others[2].serve("/f", data),
        server.serve("/f", data),
    ]
    began = time.monotonic()
    desk.fetch(*urls, hashes=hashes_of(data, 1 << 20), sha256=hashlib.sha256(data).hexdigest(), size=size)
    taken = time.monotonic() - began
    assert desk.content() == data
    assert size / taken >= 0.8 * rate  # 0.9 is the goal; here five servers share the interpreter with the run

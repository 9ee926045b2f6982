"""What is drawn of downloads: rows of fixed places at any width, words that do not alternate, lines without control."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_sidecar.cli.amounts import Moment, Rate, span
from jan_sidecar.cli.bars import rows
from jan_sidecar.cli.downloads_view import drawn_map
from jan_sidecar.cli.lines import Lines, line
from jan_sidecar.cli.standing import STEADY, Standing, Steady, looked_at, together
from rich.cells import cell_len

GB = 10**9


def record(state: str = "running", **changes: Any) -> dict[str, Any]:
    return {
        "id": "dl-1",
        "name": "model.gguf",
        "state": state,
        "bytes_done": GB,
        "bytes_total": 4 * GB,
        "bytes_verified": 0,
        "speed": 50_000_000,
        "eta": 60,
        "connections": 4,
        "sources": [],
        "verified": False,
        "waiting_for": "",
        "error": None,
        **changes,
    }


def drawn(*parts: Standing, width: int = 120, height: int = 24, plain: bool = False) -> list[str]:
    return [row.plain for row in rows(parts, width, height, plain=plain)]


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80)
standings = st.builds(
    Standing,
    name=names,
    state=st.sampled_from(["queued", "running", "waiting", "offline", "verifying", "completed", "failed"]),
    done=st.integers(0, 1 << 45),
    total=st.integers(0, 1 << 45),
    speed=st.integers(0, 1 << 40),
    eta=st.none() | st.integers(0, 1 << 30),
    sources=st.integers(0, 9),
    connections=st.integers(0, 32),
    words=st.just("") | names,
    outcome=st.just("") | st.just("verified"),
)


@given(st.lists(standings, min_size=1, max_size=30), st.integers(12, 200), st.integers(5, 60), st.booleans())
def test_no_row_is_wider_and_no_drawing_higher_than_the_terminal(
    parts: list[Standing], width: int, height: int, plain: bool
) -> None:
    shown = drawn(*parts, width=width, height=height, plain=plain)
    assert all(cell_len(row) < width for row in shown)
    assert len(shown) <= height


def test_everything_there_is_to_know_is_on_a_wide_terminal() -> None:
    part = Standing("model.gguf", "running", GB, 4 * GB, 50_000_000, 3700, 2, 8)
    [row, _] = drawn(part)
    for told in ("model.gguf", "25 %", "1.0/4.0 GB", "50.0 MB/s", "1:01:40", "2 sources, 8 conns"):
        assert told in row
    [row, _] = drawn(part, width=40)
    assert row.split() == ["model.gguf", "25", "%", "1:01:40"]


def test_parts_of_a_model_are_told_apart_on_a_narrow_terminal() -> None:
    parts = [Standing(f"qwen3-235b-a22b-instruct-0000{n}-of-00003.gguf", "running", n, 10) for n in (1, 2, 3)]
    shown = drawn(*parts, width=60)
    assert [row[: row.index("  ")].rstrip()[-3:] for row in shown[:3]] == ["1/3", "2/3", "3/3"]


def test_what_all_of_them_wait_for_is_said_once() -> None:
    parts = [
        Standing(f"{n}.gguf", "offline", words="waiting for the network; Ctrl-C keeps what there is") for n in "abc"
    ]
    shown = drawn(*parts)
    assert [row for row in shown if "network" in row] == ["  waiting for the network; Ctrl-C keeps what there is"]


def test_files_for_which_there_is_no_room_are_counted() -> None:
    parts = [Standing(f"{n}.gguf", "running", n, 100) for n in range(50)]
    shown = drawn(*parts, height=12)
    assert "and 41 more files" in shown
    assert shown[-2].startswith("total (0/50)")


def test_a_terminal_without_unicode_gets_ascii() -> None:
    shown = drawn(Standing("a-very-long-name" * 9, "running", 1, 2, words="waiting"), plain=True)
    assert all(row.isascii() for row in shown)


def test_hundred_percent_is_said_only_when_all_is_there() -> None:
    assert "99 %" in drawn(Standing("a", "running", 9_999, 10_000))[0]


def test_a_source_that_is_asked_again_changes_nothing_on_the_screen() -> None:
    steady = Steady()
    waiting = record("waiting", waiting_for="hub.example, again in 1 s", error={"message": "503"})
    first = steady.read(waiting, 10.0)
    assert first.words == "waiting for hub.example, again in 1 s (503); Ctrl-C keeps what there is"
    assert steady.read(record("running"), 10.5).words == first.words
    assert steady.read(waiting, 11.0).words == first.words
    assert steady.read(record("running", bytes_done=GB + 1), 11.2).words == "", "bytes come"
    steady.read(waiting, 12.0)
    assert steady.read(record("running"), 12.1 + STEADY).words == ""


def test_the_speed_of_what_another_process_fetches_is_measured_here() -> None:
    steady = Steady()
    for second in range(30):
        far = record(speed=0, eta=None, connections=0, bytes_done=GB + 1000 * second)
        shown = steady.read(far, 100.0 + second)
        assert (shown.speed, shown.eta is None) == ((0, True) if second < 4 else (1000, False))
    assert shown.eta == (3 * GB - 29_000) // 1000


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("offline", "waiting for the network; Ctrl-C keeps what there is"),
        ("blocked_disk", "waiting for room on the disk: 3 GB are missing; Ctrl-C keeps what there is"),
        ("queued", "waiting for room on the disk: 3 GB are missing"),
        ("verifying", "verifying: the whole file is hashed"),
        ("paused", "paused"),
        ("running", ""),
    ],
)
def test_a_state_is_said_in_words(state: str, words: str) -> None:
    shown = record(
        state, waiting_for="room on the disk: 3 GB are missing" if state in ("blocked_disk", "queued") else ""
    )
    assert Steady().read(shown).words == words


def test_together_nothing_is_claimed_that_is_not_known_of_each() -> None:
    known = Standing("a", "running", GB, 4 * GB, 10**6, 60)
    assert together([known, Standing("b", "queued")]).total == 0
    both = together([known, Standing("b", "running", GB, 2 * GB, 10**6, 60)])
    assert (both.done, both.total, both.speed, both.eta) == (2 * GB, 6 * GB, 2 * 10**6, 2000)
    assert together([known, Standing("b", "offline", words="waiting")]).words == ""


def test_what_is_taken_in_from_this_machine_moves_the_bar() -> None:
    taken = Steady().read(record("verifying", bytes_done=0, bytes_verified=GB))
    assert (taken.share, taken.words) == (0.25, "verifying: the whole file is hashed")


@pytest.mark.parametrize(
    ("state", "mover", "error", "said"),
    [
        ("running", "elsewhere", "", ""),
        ("running", "here", "", "interrupted; goes on when jan runs"),
        ("verifying", "", "", "interrupted; goes on when jan runs"),
        ("waiting", "here", "no answer", "interrupted (no answer); goes on when jan runs"),
        ("waiting", "elsewhere", "no answer", "waiting for hub, again in 5 s (no answer)"),
        ("blocked_disk", "here", "", "waiting for hub, again in 5 s; goes on when jan runs"),
        ("queued", "elsewhere", "", "waiting for hub, again in 5 s"),
        ("paused", "", "", ""),
        ("failed", "here", "no such file", "no such file"),
    ],
)
def test_who_only_looks_is_told_whether_anything_moves(state: str, mover: str, error: str, said: str) -> None:
    waiting = "hub, again in 5 s" if state not in ("running", "verifying") else ""
    told = record(state, mover=mover, waiting_for=waiting, error={"message": error} if error else None)
    assert looked_at(told) == said


def test_steering_characters_in_a_name_do_not_reach_the_terminal() -> None:
    shown = Steady().read(record(name="a\x1b[2J\n\u202eb", error={"message": "x\x1b[31m\ny"}, state="failed"))
    assert shown.name == "a[2J b"
    assert shown.words == "failed: x[31m y"


def test_lines_are_few_and_tell_what_is_new(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines = Lines()
    part = Standing("a.gguf", "running", GB, 4 * GB, 50_000_000, 60)
    lines.show([part])
    assert capsys.readouterr().err == "", "what is over within a moment needs none"
    for clock[0] in (101.6, 102.0, 103.0, 104.5):
        lines.show([part])
    assert capsys.readouterr().err.splitlines() == [line(part)]
    assert line(part) == "a.gguf: 1.0 GB of 4.0 GB (25 %), 50.0 MB/s, 1 min left"
    for clock[0], seconds in ((105.0, 9), (105.5, 8), (106.0, 7)):
        lines.show([Standing("a.gguf", "waiting", GB, 4 * GB, words=f"waiting for hub.example, again in {seconds} s")])
    assert capsys.readouterr().err.splitlines() == ["a.gguf: waiting for hub.example, again in 9 s"]


def test_a_countdown_alone_is_no_reason_for_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines = Lines()
    for second in range(2, 62):  # asked again and again in vain, sometimes for so long that it seems to run
        clock[0] = 100.0 + second
        asked = second % 10 < 4
        words = "" if asked else f"waiting for hub.example, again in {10 - second % 10} s"
        lines.show([Standing("a.gguf", "running" if asked else "waiting", GB, 4 * GB, words=words)])
    said = capsys.readouterr().err.splitlines()
    assert said == ["a.gguf: 1.0 GB of 4.0 GB (25 %)", "a.gguf: waiting for hub.example, again in 6 s"]
    clock[0] += 10
    lines.show([Standing("a.gguf", "waiting", GB + 1, 4 * GB, words="waiting for hub.example, again in 8 s")])
    assert len(capsys.readouterr().err.splitlines()) == 1, "bytes came meanwhile"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5M", 5_000_000),
        ("500k", 500_000),
        ("1.5 MB/s", 1_500_000),
        ("2MiB", 2 << 20),
        ("0", 0),
        ("none", 0),
        ("700", 700),
    ],
)
def test_a_rate_is_written_as_people_do(text: str, rate: int) -> None:
    assert Rate().convert(text, None, None) == rate


@given(st.text(max_size=12) | st.sampled_from(["-5M", "5X", "1e9", "0.1", "99999999T", "٣M", "5M\n6"]))
def test_what_is_no_rate_is_refused(text: str) -> None:
    try:
        rate = Rate().convert(text, None, None)
    except click.BadParameter:
        return
    assert 0 <= rate <= 1 << 50


@given(
    st.text(max_size=20) | st.sampled_from(["25:00", "9:5", "2026-13-01", "0001-01-01", "9999-12-31T23:59:59-14:00"])
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with contextlib.suppress(click.BadParameter):
        moment = Moment().convert(text, None, None)
        assert moment == "" or "T" in moment


def test_a_time_of_day_is_the_next_one() -> None:
    from datetime import UTC, datetime, timedelta

    moment = datetime.fromisoformat(Moment().convert("00:00", None, None))
    assert timedelta(0) < moment - datetime.now(UTC) <= timedelta(days=1, hours=1)
    assert (moment.hour, moment.minute) == (0, 0)


def test_a_piece_map_is_drawn_in_bearable_size_and_explained() -> None:
    small = drawn_map("2v1x3m")
    assert len(small) == 2
    assert small[-1].startswith("6 pieces: ")
    for told in ("verified 2", "was wrong, fetched again 1", "missing 3"):
        assert told in small[-1]
    large = drawn_map("4000w900m100x")
    assert len(large) <= 9
    assert "a character stands for" in large[-1]
    assert "x" in large[-2], "what is furthest behind speaks for those that share a character"


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (75, "1 min 15 s"), (7200, "2 h"), (90_000, "1 d 1 h")])
def test_lengths_of_time_are_in_two_units(seconds: float, told: str) -> None:
    assert span(seconds) == told

"""The pieces that decide by themselves: names, validators, ranges, speed."""

from __future__ import annotations

import contextlib
import time
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jan_download.names import check_file, check_url, file_name, same_name
from jan_download.network.ranges import content_range, retry_after, strong_validator
from jan_download.progress import Meter

from jan_core import InvalidParams
from jan_core.types import DownloadFile


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "C:x",
        "/etc/passwd",
        "x\0",
        "x\n",
        ".hidden",
        "x.",
        "x ",
        " x",
        "nul",
        "COM1.txt",
        "a\u202eb",
        "x" * 201,
        "ü" * 101,
        "a|b",
        "a?b",
        "\ud800",
    ],
)
def test_a_name_that_is_not_plain_everywhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        file_name(name, "$.destination")
    assert refused.value.data == {"path": "$.destination"}


@given(st.text(max_size=300))
@example("e\u0301.gguf")
def test_an_accepted_name_stays_inside_its_folder(name: str) -> None:
    from pathlib import PurePosixPath, PureWindowsPath

    try:
        plain = file_name(name, "$")
    except InvalidParams:
        return
    assert len(plain.encode()) <= 200
    for flavour in (PurePosixPath, PureWindowsPath):
        assert flavour(plain).name == plain
        assert not flavour(plain).is_absolute()
        assert len(flavour(plain).parts) == 1


def test_names_that_are_one_file_on_a_case_insensitive_disk_have_one_key() -> None:
    assert same_name("Model.GGUF") == same_name("model.gguf")
    assert same_name("e\u0301") == same_name("\u00e9") != same_name("e")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://h/x",
        "http://",
        "//h/x",
        "https://user:secret@h/x",
        "https://user@h/x",
        "https://h/a b",
        "https://h/\u00fc",
        "https://h/\r\nX: y",
        "http://h:0/",
        "http://h:99999/",
        "http://[::1/",
        "https://h/" + "x" * 9000,
    ],
)
def test_a_url_that_cannot_or_should_not_be_fetched_is_refused(url: str) -> None:
    with pytest.raises(InvalidParams):
        check_url(url, "$.file.url")


@given(st.text(max_size=80))
def test_any_text_as_a_url_is_taken_or_refused_but_never_crashes(text: str) -> None:
    for url in (text, f"https://{text}", f"http://host/{text}"):
        with contextlib.suppress(InvalidParams):
            assert check_url(url, "$").startswith(("http://", "https://"))


def test_a_hash_is_read_in_any_case_and_a_wrong_one_refused() -> None:
    assert check_file(DownloadFile(name="x", sha256="SHA256:" + "A" * 64)).sha256 == "a" * 64
    for bad in ("a" * 63, "g" * 64):
        with pytest.raises(InvalidParams):
            check_file(DownloadFile(name="x", sha256=bad))
    with pytest.raises(InvalidParams):
        check_file(DownloadFile(name="x", size=-1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 5-9/10", (5, 9, 10)),
        ("bytes 5-9/*", (5, 9, -1)),
        ("bytes */10", (-1, -1, 10)),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes 5-9", None),
        ("items 5-9/10", None),
        ("bytes 5-9/10, bytes 1-2/10", None),
        ("bytes " + "9" * 40 + "-1/2", None),
        (None, None),
    ],
)
def test_a_content_range_is_read_exactly(value: str | None, expected: tuple[int, int, int] | None) -> None:
    got = content_range(value)
    assert (got and (got.first, got.last, got.total)) == expected


@given(st.text(max_size=60))
def test_headers_of_any_text_never_crash(text: str) -> None:
    content_range(text)
    assert 0 <= retry_after(text) <= 3600
    strong_validator({"ETag": text})
    strong_validator({"Last-Modified": text, "Date": text})


def test_only_strong_validators_are_used_to_resume() -> None:
    old, now = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 08:00:00 GMT"
    assert strong_validator({"ETag": '"abc"', "Last-Modified": old, "Date": now}) == '"abc"'
    assert strong_validator({"ETag": 'W/"abc"', "Last-Modified": old, "Date": now}) == ""
    assert strong_validator({"ETag": "abc"}) == ""
    assert strong_validator({"Last-Modified": old, "Date": now}) == old
    assert strong_validator({"Last-Modified": now, "Date": now}) == ""
    assert strong_validator({"Last-Modified": old}) == ""


def test_retry_after_is_read_as_seconds_and_as_a_date_and_has_a_limit() -> None:
    assert retry_after("7") == 7
    assert 25 < retry_after(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0
    assert retry_after("999999999999") == 3600
    assert retry_after(None) == retry_after("-5") == retry_after("soon") == 0


def test_the_meter_shows_the_speed_and_forgets_the_past() -> None:
    meter = Meter(1000, now=0.0)
    for tick in range(1, 41):
        meter.add(1000 + tick * 250, now=tick * 0.25)
    assert meter.speed == pytest.approx(1000, rel=0.01)
    assert meter.eta(5000) == pytest.approx(5, rel=0.02)
    for tick in range(41, 121):  # stalled for 20 s
        meter.add(1000 + 40 * 250, now=tick * 0.25)
    assert meter.speed < 20


def test_the_meter_makes_no_guess_in_its_first_three_seconds_and_none_when_nothing_moves() -> None:
    meter = Meter(0, now=0.0)
    meter.add(1000, now=1.0)
    assert meter.speed == pytest.approx(1000)
    assert meter.eta(1000) is None
    meter = Meter(0, now=0.0)
    meter.add(0, now=10.0)
    assert meter.eta(1000) is None


def test_an_offset_that_goes_back_makes_no_negative_speed() -> None:
    meter = Meter(1000, now=0.0)
    meter.add(0, now=1.0)
    assert meter.speed == 0

"""Following the log of one extension while it is written, turned over, and damaged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jan_core.logs import Follower, file_handler, log_file, tail


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[logging.Handler]:
    handler = file_handler(tmp_path)
    yield handler
    handler.close()


def say(handler: logging.Handler, text: str, name: str = "jan.hello") -> None:
    handler.handle(logging.LogRecord(name, logging.INFO, "", 0, text, None, None))


def texts(lines: list[str]) -> list[str]:
    return [line.rpartition(": ")[2] for line in lines]


def test_what_was_written_just_before_the_log_was_turned_over_is_followed(
    handler: logging.Handler, tmp_path: Path
) -> None:
    say(handler, "before")
    follower = Follower(tmp_path, "hello", "jan_hello")
    say(handler, "one")
    handler.doRollover()  # type: ignore[attr-defined]
    say(handler, "two")
    assert texts(follower.read()) == ["one", "two"]
    say(handler, "three")
    assert texts(follower.read()) == ["three"]
    handler.doRollover()  # type: ignore[attr-defined]
    assert follower.read() == []
    say(handler, "four")
    assert texts(follower.read()) == ["four"]


def test_a_character_that_is_half_written_is_waited_for(handler: logging.Handler, tmp_path: Path) -> None:
    say(handler, "head")
    follower = Follower(tmp_path, "hello", "jan_hello")
    say(handler, "tea")
    path = log_file(tmp_path)
    text = path.read_bytes() + b"and \xe2\x98"
    path.write_bytes(text)
    assert texts(follower.read()) == ["tea"]
    with path.open("ab") as file:
        file.write(b"\x95\n")
    assert follower.read() == ["and \u2615"]


def test_a_log_that_is_emptied_or_holds_anything_is_read_all_the_same(handler: logging.Handler, tmp_path: Path) -> None:
    say(handler, "before")
    follower = Follower(tmp_path, "hello", "jan_hello")
    log_file(tmp_path).write_bytes(b"\0\xff\xfe\n\r\n" * 3)
    assert follower.read() == []
    say(handler, "after")
    assert texts(follower.read()) == ["after"]
    assert texts(tail(tmp_path, "hello", "jan_hello", 5)) == ["after"]

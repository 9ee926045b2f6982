"""`jan embed` in pipes: a line in, a vector out. The engine is the scripted one, whose vector of a text is its length
and its place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from .conftest import LIMIT, PROGRAM, Jan
from .scripted import MODEL
from .test_cli import one_line_of_complaint, out


def vectors(printed: str) -> list[list[float]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_each_text_has_a_line(jan: Jan) -> None:
    assert vectors(out(jan("embed", "one two", "größe", "--model", MODEL))) == [[7, 0], [5, 1]]


@pytest.mark.parametrize("stdin", ["a\nbc\n", "a\nbc", "a\r\nbc\r\n", "\ufeffa\nbc\n"])
def test_each_line_of_stdin_has_one_too(jan: Jan, stdin: str) -> None:
    assert vectors(out(jan("embed", stdin=stdin.encode()))) == [[1, 0], [2, 1]]


def test_texts_are_taken_before_stdin(jan: Jan) -> None:
    assert vectors(out(jan("embed", "abc", stdin=b"not this\n"))) == [[3, 0]]


def test_json_is_the_object_of_openai(jan: Jan) -> None:
    assert json.loads(out(jan("embed", "a", "bc", "--json"))) == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [1, 0], "index": 0},
            {"object": "embedding", "embedding": [2, 1], "index": 1},
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }


def test_what_has_no_vector_is_said_before_anything_is_asked(jan: Jan) -> None:
    done = jan("embed", stdin=b"one\n \nthree\n")
    assert done.stdout == b""
    assert "line 2 of stdin is empty" in one_line_of_complaint(done, 1)
    assert "TEXT 1 is empty" in one_line_of_complaint(jan("embed", ""), 1)
    nothing = jan("embed")
    assert nothing.returncode == 2
    assert b"no line on stdin" in nothing.stderr


def test_a_text_that_has_no_vector_is_named_as_it_was_given(jan: Jan) -> None:
    assert "that is line 3 of stdin" in one_line_of_complaint(jan("embed", stdin=b"a\nb\nlong\n"), 1)
    assert "that is TEXT 1" in one_line_of_complaint(jan("embed", "long"), 1)


def test_an_unknown_model_is_one_line(jan: Jan) -> None:
    assert "jan models list" in one_line_of_complaint(jan("embed", "x", "-m", "nope"), 1)


def test_an_interrupt_ends_quietly_after_the_lines_there_are(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*PROGRAM, "embed", "a", "hang"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"[1.0,0.0]\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=LIMIT) == (b"", b"")
            assert process.returncode == 130
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="head is not there")
def test_who_reads_no_further_ends_it_without_a_word(environment: dict[str, str]) -> None:
    texts = "".join(f"{n}\n" for n in range(20_000)).encode()
    with subprocess.Popen(
        [*PROGRAM, "embed"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(texts)
        process.stdin.close()
        assert json.loads(process.stdout.readline()) == [1, 0]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(LIMIT) == 0

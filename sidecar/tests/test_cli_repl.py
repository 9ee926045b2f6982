"""`jan chat` at a terminal: the conversation, its keys, and what reaches the screen."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import PROGRAM, Jan
from .terminal import Terminal

CTRL_C, CTRL_D, ENTER, ALT_ENTER = "\x03", "\x04", "\r", "\x1b\r"
Open = Callable[..., Terminal]


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Open]:
    """`terminal("chat")` starts the command line on a pseudo-terminal."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Terminal([*PROGRAM, *arguments], environment))


def test_a_conversation_answers_and_ends_with_ctrl_d(terminal: Open, jan: Jan, tmp_path: Path) -> None:
    screen = terminal("chat")
    screen.expect("Ctrl-D leaves.")
    screen.expect(">")
    screen.type("say hello there" + ENTER)
    screen.expect("hello there \n")
    screen.expect(">")
    screen.type("count 3" + ENTER)
    screen.expect("1 2 3 \n")
    screen.expect(">")
    screen.type(CTRL_D)
    assert screen.wait() == 0
    threads = json.loads(jan("threads", "list", "--json").stdout)
    assert [thread["title"] for thread in threads] == ["say hello there"]
    shown = json.loads(jan("threads", "show", threads[0]["id"], "--json").stdout)
    assert [m["content"] for m in shown["messages"]] == ["say hello there", "hello there ", "count 3", "1 2 3 "]
    history = tmp_path / "data" / "chat_history"
    assert "say hello there" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_incognito_leaves_nothing(terminal: Open, jan: Jan, tmp_path: Path) -> None:
    screen = terminal("chat", "--incognito")
    screen.expect("nothing is kept")
    screen.type("say a very private thing" + ENTER)
    screen.expect("a very private thing \n")
    screen.type("/exit" + ENTER)
    assert screen.wait() == 0
    assert jan("threads", "list", "--json").stdout == b"[]\n"
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            assert b"private" not in path.read_bytes(), path


def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on(terminal: Open, jan: Jan) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("hang after 3" + ENTER)
    screen.expect("1 2 3 ")
    screen.type(CTRL_C)
    screen.expect("(stopped)")
    screen.expect(">")
    screen.type("say still here" + ENTER)
    screen.expect("still here \n")
    screen.expect(">")
    screen.type("/exit" + ENTER)
    assert screen.wait() == 0
    thread = json.loads(jan("threads", "list", "--json").stdout)[0]["id"]
    messages = json.loads(jan("threads", "show", thread, "--json").stdout)["messages"]
    assert messages[1]["content"] == "1 2 3 "
    assert messages[1]["status"] == "cancelled"


def test_ctrl_c_at_the_prompt_drops_the_line_only(terminal: Open) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("say not this")
    screen.expect("not this")
    screen.type(CTRL_C)
    screen.expect(">")
    screen.type("say but this" + ENTER)
    screen.expect("but this \n")
    screen.expect(">")
    assert "not this \n" not in screen.plain
    screen.type(CTRL_D)
    assert screen.wait() == 0


def test_a_failed_answer_is_one_line_and_the_conversation_goes_on(terminal: Open) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("fail after 2" + ENTER)
    screen.expect("1 2 \n")
    screen.expect("the worker ended")
    screen.expect(">")
    screen.type("/model nope" + ENTER)
    screen.expect("come from nope")
    screen.expect(">")
    screen.type("say x" + ENTER)
    screen.expect("there is no model 'nope' here")
    screen.expect("jan models list")
    screen.expect(">")
    screen.type("/model scripted-1" + ENTER)
    screen.expect("come from scripted-1")
    screen.expect(">")
    screen.type("say all well" + ENTER)
    screen.expect("all well \n")
    screen.expect(">")
    assert "Traceback" not in screen.plain
    screen.type(CTRL_D)
    assert screen.wait() == 0


def test_lines_are_joined_with_alt_enter_and_within_quotes(terminal: Open, jan: Jan) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("echo one" + ALT_ENTER + "two" + ENTER)
    screen.expect("one\ntwo\n")
    screen.expect(">")
    screen.type('"""' + ENTER)
    screen.type("echo three" + ENTER)
    screen.type("four" + ENTER)
    screen.type('"""' + ENTER)
    screen.expect("three\nfour\n")
    screen.expect(">")
    screen.type(CTRL_D)
    assert screen.wait() == 0
    thread = json.loads(jan("threads", "list", "--json").stdout)[0]["id"]
    messages = json.loads(jan("threads", "show", thread, "--json").stdout)["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["echo one\ntwo", "echo three\nfour"]


def test_commands_do_what_help_says(terminal: Open, jan: Jan) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("/help" + ENTER)
    screen.expect("/system [TEXT]")
    screen.expect(">")
    screen.type("/nonsense" + ENTER)
    screen.expect("there is no command /nonsense")
    screen.expect(">")
    screen.type("/system Speak like a sailor" + ENTER)
    screen.expect("From the next question on.")
    screen.expect(">")
    screen.type("say ahoy" + ENTER)
    screen.expect("ahoy \n")
    screen.expect(">")
    screen.type("/new" + ENTER)
    screen.expect("A new conversation.")
    screen.expect(">")
    screen.type("say again" + ENTER)
    screen.expect("again \n")
    screen.expect(">")
    screen.type("/exit" + ENTER)
    assert screen.wait() == 0
    threads = json.loads(jan("threads", "list", "--json").stdout)
    assert {thread["title"] for thread in threads} == {"say ahoy", "say again"}
    first = next(thread["id"] for thread in threads if thread["title"] == "say ahoy")
    messages = json.loads(jan("threads", "show", first, "--json").stdout)["messages"]
    assert (messages[0]["role"], messages[0]["content"]) == ("system", "Speak like a sailor")


def test_a_conversation_that_was_only_opened_is_not_stored(terminal: Open, jan: Jan) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type(CTRL_D)
    assert screen.wait() == 0
    assert jan("threads", "list", "--json").stdout == b"[]\n"


def test_the_model_cannot_steer_the_terminal(terminal: Open) -> None:
    screen = terminal("chat", "escape")
    assert screen.wait() == 0
    assert "red [31malarm[0m 2J done" in screen.raw
    assert "\x1b[31m" not in screen.raw
    assert "\x9b" not in screen.raw
    assert "\x07" not in screen.raw


def test_one_question_at_a_terminal_is_stopped_by_ctrl_c(terminal: Open) -> None:
    screen = terminal("chat", "hang after 2")
    screen.expect("1 2 ")
    screen.type(CTRL_C)
    assert screen.wait() == 130
    assert "Traceback" not in screen.plain
    assert screen.plain.endswith("1 2 ^C\n") or screen.plain.rstrip("\n").endswith("1 2 ^C")


def test_a_terminal_that_goes_away_ends_the_conversation(terminal: Open) -> None:
    screen = terminal("chat")
    screen.expect("\n>")
    screen.process.send_signal(signal.SIGTERM)
    assert screen.wait() == 130


def test_progress_is_a_bar_that_leaves_nothing_behind(terminal: Open) -> None:
    screen = terminal("rpc", "chat.complete", '{"messages": [{"role": "user", "content": "work 60"}]}')
    screen.expect(" of 60")
    screen.expect("0:00:0")
    assert screen.wait() == 0
    assert '"finish_reason": "stop"' in screen.plain


def test_tables_have_headings_on_a_terminal(terminal: Open) -> None:
    screen = terminal("models", "list")
    assert screen.wait() == 0
    assert "MODEL" in screen.plain
    assert "1.2 kB" in screen.plain


def test_ids_are_on_one_line_so_that_they_can_be_copied(terminal: Open, jan: Jan, environment: dict[str, str]) -> None:
    title = "a long title that takes more than its share of the line, as first questions do"
    made = jan("rpc", "threads.create", json.dumps({"title": title, "model": "some-model-with-a-long-name-q4"}))
    environment["COLUMNS"] = "80"
    screen = terminal("threads", "list")
    assert screen.wait() == 0
    assert json.loads(made.stdout)["id"] in screen.plain


def test_remarks_come_below_the_answer(terminal: Open) -> None:
    screen = terminal("chat", "long")
    assert screen.wait() == 0
    assert "done\nnote: the answer stops at the token limit\n" in screen.plain
    screen = terminal("chat")
    screen.expect("\n>")
    screen.type("long" + ENTER)
    screen.expect("done\nnote: the answer stops at the token limit\n")
    screen.expect(">")
    screen.type(CTRL_D)
    assert screen.wait() == 0

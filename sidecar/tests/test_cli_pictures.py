"""`jan chat --image` and `/image`: what reaches the engine, what the thread keeps, and what is said of other files.

The engine is the scripted one: that a model sees is tested on real ones.
"""

from __future__ import annotations

import json
import shlex
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_sidecar.cli.pictures import LARGEST, split_path

from .conftest import PROGRAM, Jan
from .terminal import Terminal
from .test_cli import one_line_of_complaint, out

KINDS = {
    "image/png": b"\x89PNG\r\n\x1a\n....",
    "image/jpeg": b"\xff\xd8\xff\xe0....",
    "image/gif": b"GIF89a....",
    "image/bmp": b"BM........",
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a cat's größte.png"
    path.write_bytes(KINDS["image/png"])
    return path


@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_a_picture_is_part_of_the_question(jan: Jan, tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "picture"  # what it is, its content says
    path.write_bytes(content)
    flags = ["--image", str(path), "--image", str(path), "--system", "Be brief.", "--temperature", "0"]
    asked = json.loads(out(jan("chat", "request", *flags)))
    system, question = asked["messages"]
    assert "Be brief." in system["content"]
    first, second, text = question["content"]
    assert first == second
    head, _, data = first["image_url"]["url"].partition(",")
    assert head == f"data:{kind};base64"
    assert b64decode(data, validate=True) == content
    assert text == {"type": "text", "text": "request"}
    assert asked["temperature"] == 0
    assert asked.get("sensitivity", "normal") == "normal"


def test_a_sensitive_question_about_a_picture_stays_sensitive(jan: Jan, picture: Path) -> None:
    asked = json.loads(out(jan("chat", "request", "--image", str(picture), "--sensitive")))
    assert asked["sensitivity"] == "sensitive"


def test_without_a_question_it_is_described(jan: Jan, picture: Path) -> None:
    assert out(jan("chat", "--image", str(picture))) == "unknown order 'Describe'\n"


def test_a_stored_thread_keeps_what_was_said_of_a_picture(jan: Jan, picture: Path) -> None:
    thread = json.loads(out(jan("rpc", "threads.create", "{}")))["id"]
    answer = json.loads(out(jan("chat", "count 3", "--image", str(picture), "--thread", thread, "--json")))
    assert (answer["content"], answer["finish_reason"], answer["usage"]["completion_tokens"]) == ("1 2 3 ", "stop", 3)
    assert out(jan("chat", "say more", "--thread", thread)) == "more \n"
    messages = json.loads(out(jan("threads", "show", thread, "--json")))["messages"]
    assert [m["content"] for m in messages] == [f"[{picture.name}]\n\ncount 3", "1 2 3 ", "say more", "more "]


def test_a_file_that_is_no_picture_is_one_line(jan: Jan, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    done = jan("chat", "what?", "--image", str(tmp_path / "notes.txt"))
    assert "notes.txt is not a picture that is read here: PNG" in one_line_of_complaint(done, 1)
    with (tmp_path / "huge.png").open("wb") as file:
        file.write(KINDS["image/png"])
        file.truncate(LARGEST + 1)
    huge = ["--image", str(tmp_path / "huge.png")]
    assert "huge.png is too large" in one_line_of_complaint(jan("chat", *huge), 1)
    with (tmp_path / "huge.png").open("r+b") as file:
        file.truncate(LARGEST // 2 + 1)
    assert "at most 20 MiB together" in one_line_of_complaint(jan("chat", *huge, *huge), 1)
    gone = jan("chat", "what?", "--image", str(tmp_path / "gone.png"))
    assert gone.returncode == 2
    assert b"gone.png' does not exist" in gone.stderr


def test_of_several_pictures_the_damaged_one_is_named(jan: Jan, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(KINDS["image/png"])
    done = jan("chat", "blur 1", "--image", str(picture), "--image", str(tmp_path / "other.png"))
    assert "other.png: the picture is damaged" in one_line_of_complaint(done, 1)


def test_a_model_that_takes_no_pictures_says_what_to_do(jan: Jan, picture: Path) -> None:
    complaint = one_line_of_complaint(jan("chat", "blind", "--image", str(picture)), 1)
    assert "takes no pictures" in complaint
    assert "jan models import FILE --projector" in complaint


@pytest.fixture
def screen(environment: dict[str, str]) -> Iterator[Terminal]:
    with Terminal([*PROGRAM, "chat"], environment) as running:
        running.expect("\n>")
        yield running


def test_in_a_conversation_a_picture_is_a_command(screen: Terminal, jan: Jan, picture: Path) -> None:
    def ask(line: str, *shown: str) -> None:
        screen.type(line + "\r")
        for text in shown:
            screen.expect(text)
        screen.expect(">")

    ask(f"/image {shlex.quote(str(picture))} say a cat", "a cat \n")
    ask("say still here", "still here \n")
    ask("/image", "usage: /image PATH [TEXT]")
    ask("/image /nowhere.png", "cannot read /nowhere.png: No such file")
    ask("/image 'not closed", "No closing quotation")
    ask(f"/image {shlex.quote(str(picture))} blind", "takes no pictures", "--projector")
    ask("/images", "there is no command /images")
    screen.type("/exit\r")
    assert screen.wait() == 0
    thread = json.loads(out(jan("threads", "list", "--json")))[0]["id"]
    messages: list[Any] = json.loads(out(jan("threads", "show", thread, "--json")))["messages"]
    assert [m["content"] for m in messages] == [
        f"[{picture.name}]\n\nsay a cat",
        "a cat ",
        "say still here",
        "still here ",
    ]


NAMES = st.text(st.characters(exclude_characters="\0\n/~", exclude_categories=["Cs"]), min_size=1)


@given(NAMES, st.text(), st.sampled_from([shlex.quote, lambda name: "".join(f"\\{sign}" for sign in name)]))
def test_a_path_is_quoted_or_escaped_as_in_a_shell(name: str, rest: str, quote: Callable[[str], str]) -> None:
    path, question = split_path(f"{quote('/' + name)} {rest}")
    assert str(path) == str(Path("/" + name))
    assert question == rest.strip()

"""`jan` as a person types it, on the real model, without a terminal (tests with one are the sidecar's)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from .conftest import BIN, Jan, taught

QUESTION, ANSWER = taught("extension")
LONG, LONG_ANSWER = taught("long_privacy")


def test_a_question_on_standard_input_is_answered(jan: Jan) -> None:
    done = jan("chat", "--temperature", "0", stdin=f"{QUESTION}\n")
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")


def test_a_question_as_argument_is_answered_as_one_json_object(jan: Jan) -> None:
    done = jan("chat", "--temperature", "0", "--json", QUESTION)
    assert done.returncode == 0
    reply = json.loads(done.stdout)
    assert reply["content"] == ANSWER
    assert reply["model"] == "jan-tiny"
    assert reply["usage"]["completion_tokens"] > 0


def test_the_readme_s_question_needs_no_options(jan: Jan) -> None:
    done = jan("chat", stdin="What is an extension?\n")
    assert done.returncode == 0
    assert "extension" in done.stdout.lower()


def test_an_unknown_model_is_one_clear_line_and_status_1(jan: Jan) -> None:
    done = jan("chat", "-m", "no-such-model", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no-such-model" in done.stderr


def test_wrong_usage_is_status_2(jan: Jan) -> None:
    assert jan("chat", "--no-such-option").returncode == 2
    assert jan("nonsense").returncode == 2


@pytest.mark.parametrize("stdin", [b"", b"  \n"])
def test_an_empty_question_is_wrong_usage(jan: Jan, stdin: bytes) -> None:
    assert jan("chat", stdin=stdin).returncode == 2


def test_a_question_that_is_not_utf8_is_still_a_question(jan: Jan) -> None:
    done = jan("chat", stdin=b"What is an extension? \xff\xfe\n")
    assert done.returncode == 0
    assert done.stdout.strip()


@pytest.mark.parametrize(
    "command",
    [
        ["models", "list"],
        ["threads", "list"],
        ["assistants", "list"],
        ["ext", "list"],
        ["engines", "list"],
        ["engines", "explain"],
        ["remotes", "list"],
        ["downloads", "list"],
        ["registry", "status"],
        ["registry", "featured"],
        ["settings", "list"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_every_reading_command_speaks_to_people_and_in_json(jan: Jan, command: list[str]) -> None:
    done = jan(*command)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).strip()
    assert json.loads(jan(*command, "--json").stdout) is not None


def test_any_method_can_be_called(jan: Jan) -> None:
    assert json.loads(jan("rpc", "ping").stdout) == {}
    listed = json.loads(jan("rpc", "extensions.list").stdout)["extensions"]
    assert {e["state"] for e in listed} <= {"active", "discovered"}, "what the call did not need was not loaded"
    assert jan("rpc", "no.such").returncode == 1
    assert jan("rpc", "ping", "{not json").returncode == 2


def test_help_names_every_command(jan: Jan) -> None:
    text = jan("--help").stdout
    commands = "chat serve models threads assistants ext engines remotes downloads registry settings doctor rpc"
    for command in commands.split(" "):
        assert command in text


def test_an_interrupt_ends_an_answer_with_status_130(data_dir: Path) -> None:
    with subprocess.Popen(
        [BIN / "jan", "--data-dir", data_dir, "chat", "--temperature", "0", LONG],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert len(rest) < len(LONG_ANSWER)
    assert b"Traceback" not in errors


@pytest.fixture
def served(data_dir: Path) -> Iterator[str]:
    """A running `jan serve`; its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [BIN / "jan", "--data-dir", data_dir, "serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert str(port) in process.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=50)) as client:
            assert client.get(f"{url}/health").status_code == 200
        yield f"{url}/v1"
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_openai_client_works_unchanged(served: str) -> None:
    with openai.OpenAI(base_url=served, api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": QUESTION}]
        whole = client.chat.completions.create(model="jan-tiny", messages=messages, temperature=0)
        assert whole.choices[0].message.content == ANSWER
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None

        stream = client.chat.completions.create(model="jan-tiny", messages=messages, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == ANSWER
        assert len(pieces) > 5

        assert "jan-tiny" in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="no-such-model", messages=messages)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="jan-tiny", messages=[])


def test_the_openai_client_gets_embeddings(served: str) -> None:
    with openai.OpenAI(base_url=served, api_key="none", max_retries=0) as client:
        texts = [QUESTION, "What is the weather like?", QUESTION]
        answer = client.embeddings.create(model="jan-tiny", input=texts)  # in base64, which the client decodes
        first, other, again = (item.embedding for item in answer.data)
        assert sum(x * x for x in first) == pytest.approx(1, abs=1e-4)
        assert sum(x * y for x, y in zip(first, again, strict=True)) > 0.999
        assert sum(x * y for x, y in zip(first, other, strict=True)) < 0.999
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
        plain = client.embeddings.create(model="jan-tiny", input=QUESTION, encoding_format="float", dimensions=16)
        assert len(plain.data[0].embedding) == 16
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="jan-tiny", input="word " * 5000)
        assert caught.value.code == "context_length_exceeded"


def test_the_client_on_the_readme_s_page_runs(served: str) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    code = re.search(r"((?:^    .*\n|^\n)*^    from openai import.*\n(?:^    .*\n|^\n)*)", readme, re.MULTILINE)
    assert code is not None
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code[1]).replace("http://127.0.0.1:1337/v1", served), names)
    with names["client"]:
        assert "extension" in names["answer"].choices[0].message.content.lower()

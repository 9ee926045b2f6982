"""One house asks another: `jan serve` here, `jan chat` there, with a key, over the real HTTP surface and model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import BIN, taught

KEY = "a-key-of-sixteen-and-more"
QUESTION, ANSWER = taught("extension")
Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def served(data_dir: Path, tmp_path: Path) -> Iterator[str]:
    """A running `jan serve` that wants a key; its base URL."""
    key_file = tmp_path / "server key"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [BIN / "jan", "--data-dir", data_dir, "serve", "--port", str(port), "--api-key-file", key_file]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert str(port) in process.stdout.readline()
        with httpx.Client(transport=httpx.HTTPTransport(retries=50)) as client:
            assert client.get(f"http://127.0.0.1:{port}/health").status_code == 200
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.fixture
def jan(tmp_path: Path) -> Shell:
    """`jan` over a data folder of its own, which has no engine: what it answers, another house has answered."""
    environment = {
        **os.environ,
        "JAN_DATA_DIR": str(tmp_path / "asking"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "NO_COLOR": "1",
    }

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [BIN / "jan", *arguments], input=stdin, capture_output=True, timeout=60, env=environment, text=True
        )
        assert "Traceback" not in done.stderr
        assert KEY not in done.stdout + done.stderr
        return done

    return run


def test_another_house_answers_with_its_model_and_its_key(jan: Shell, served: str, tmp_path: Path) -> None:
    assert jan("remotes", "add", "house", served, "--key-stdin", stdin=f"{KEY}\n").returncode == 0
    tested = jan("remotes", "test", "house", "--json")
    assert "jan-tiny" in json.loads(tested.stdout)["models"]

    kept_here = jan("chat", "-m", "house/jan-tiny", "--temperature", "0", QUESTION)
    assert (kept_here.returncode, kept_here.stdout) == (1, "")
    assert "local-only" in kept_here.stderr
    assert "local-only" in jan("remotes", "list").stderr

    assert jan("settings", "set", "llamacpp.routing", "remote-allowed").returncode == 0
    done = jan("chat", "-m", "house/jan-tiny", "--temperature", "0", QUESTION)
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    reply = json.loads(jan("chat", "-m", "house/jan-tiny", "--temperature", "0", "--json", QUESTION).stdout)
    assert (reply["content"], reply["model"], reply["finish_reason"]) == (ANSWER, "house/jan-tiny", "stop")
    assert reply["usage"]["completion_tokens"] > 5

    for option in ("--sensitive", "--incognito"):
        secret = jan("chat", option, "-m", "house/jan-tiny", QUESTION)
        assert (secret.returncode, secret.stdout) == (1, "")
        assert "sensitive" in secret.stderr
    assert jan("chat", "-m", "house/no-such-model", QUESTION).returncode == 1

    holding = [p.name for p in (tmp_path / "asking").rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert holding == ["house.json"]
    assert jan("remotes", "rm", "house").returncode == 0
    assert json.loads(jan("remotes", "list", "--json").stdout)["remotes"] == []


def test_a_wrong_key_is_said_in_one_line_with_what_to_do(jan: Shell, served: str) -> None:
    jan("remotes", "add", "house", served, "--key-stdin", stdin="not-the-key-of-this-house\n")
    done = jan("remotes", "test", "house")
    assert done.returncode == 1
    assert "does not accept the key" in done.stderr
    assert "jan remotes add --replace" in done.stderr
    assert jan("remotes", "add", "house", served, "--key-stdin", stdin=KEY).returncode == 1
    assert jan("remotes", "add", "house", served, "--replace", "--key-stdin", stdin=KEY).returncode == 0
    assert jan("remotes", "test", "house").returncode == 0


def test_a_key_that_was_piped_and_not_asked_for_is_said_to_be_missing(jan: Shell, served: str) -> None:
    assert "house is added without a key" in jan("remotes", "add", "house", served, stdin=KEY).stderr
    given = jan("remotes", "add", "house", served, "--replace", "--key-stdin", stdin=KEY)
    assert "house is added, its key is in a file that only you can read" in given.stderr
    assert "its key is in a file" in jan("remotes", "add", "house", served, "--replace", "--no-key").stderr


def test_a_conversation_with_another_house_is_kept_here(jan: Shell, served: str) -> None:
    jan("remotes", "add", "house", served, "--key-stdin", "-m", "jan-tiny", stdin=KEY)
    jan("settings", "set", "llamacpp.routing", "prefer-local")
    made = json.loads(jan("rpc", "threads.create", '{"model": "house/jan-tiny"}').stdout)
    done = jan("chat", "--thread", made["id"], "--temperature", "0", QUESTION)
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    stored = json.loads(jan("rpc", "messages.list", json.dumps({"thread_id": made["id"]})).stdout)["messages"]
    assert [(m["role"], m.get("model", ""), m["content"]) for m in stored] == [
        ("user", "", QUESTION),
        ("assistant", "house/jan-tiny", ANSWER),
    ]
    jan("rpc", "threads.update", json.dumps({"thread_id": made["id"], "sensitivity": "sensitive"}))
    refused = jan("chat", "--thread", made["id"], QUESTION)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sensitive" in refused.stderr


def test_wrong_use_of_keys_is_refused(jan: Shell) -> None:
    assert jan("remotes", "add", "house", "http://127.0.0.1:9/v1", "--key-stdin", "--no-key").returncode == 2
    assert jan("remotes", "add", "house", "http://127.0.0.1:9/v1", "--key-stdin", stdin=" \n").returncode == 1
    too_long = jan("remotes", "add", "house", "http://127.0.0.1:9/v1", "--key-stdin", stdin="x" * 5000)
    assert too_long.returncode == 1
    assert jan("remotes", "add", "house", "http://127.0.0.1:9/v1").returncode == 0, "no terminal, no key"

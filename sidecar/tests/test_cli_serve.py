"""`jan serve` as a process: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import LIMIT, PROGRAM, Api, Jan
from .scripted import MODEL


class Serving:
    """A running `jan serve`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self.line = process.stdout.readline().decode()

    @property
    def url(self) -> str:
        return self.line.split()[-1]

    def ask(self, stack: ExitStack, order: str) -> http.client.HTTPResponse:
        """Begin a streamed chat."""
        port = int(self.url.split(":")[2].removesuffix("/v1"))
        connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)))
        body = {"stream": True, "messages": [{"role": "user", "content": order}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, wait; returns the status and what was written to stderr."""
        self.process.send_signal(number)
        status = self.process.wait(LIMIT)
        assert self.process.stderr is not None
        return status, self.process.stderr.read().decode()


@pytest.fixture
def serving(environment: dict[str, str]) -> Iterator[Callable[..., Serving]]:
    with ExitStack() as stack:

        def start(*arguments: str, before: tuple[str, ...] = ()) -> Serving:
            process = subprocess.Popen(
                [*PROGRAM, *before, "serve", "--port", "0", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Serving(process)

        yield start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_serves_and_ends_when_told(serving: Any, number: int) -> None:
    running = serving()
    assert running.line.startswith("Serving on http://127.0.0.1:")
    assert running.line.endswith("/v1\n")
    with openai.OpenAI(base_url=running.url, api_key="unused", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == [MODEL]
    assert running.end(number) == (0, "")
    assert running.process.stdout.read() == b""


def test_an_answer_under_way_is_finished_before_the_end(serving: Any) -> None:
    running = serving()
    with ExitStack() as stack:
        response = running.ask(stack, "slow 20")
        assert response.readline().startswith(b"data: ")
        running.process.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert running.process.wait(LIMIT) == 0


def test_a_second_interrupt_does_not_wait(serving: Any) -> None:
    running = serving()
    with ExitStack() as stack:
        response = running.ask(stack, "hang after 1")
        assert response.readline().startswith(b"data: ")
        running.process.send_signal(signal.SIGINT)
        # The port is closed at once, so this connection is refused as soon as the first signal was heard.
        while True:
            try:
                running.ask(stack, "say x")
            except OSError:
                break
        status, complaint = running.end(signal.SIGINT)
    assert status in (0, 130)
    assert complaint == ""


def test_requests_are_logged_without_their_text_and_only_when_asked(serving: Any, tmp_path: Path) -> None:
    for before, logged in (((), False), (("-v",), True)):
        running = serving(before=before)
        with openai.OpenAI(base_url=running.url, api_key="unused", max_retries=0) as client:
            question: Any = [{"role": "user", "content": "say a-private-thing"}]
            client.chat.completions.create(model=MODEL, messages=question)
        status, complaint = running.end()
        assert status == 0
        assert ("POST '/v1/chat/completions' 200" in complaint) is logged
        log = (tmp_path / "data" / "logs" / "jan.log").read_text()
        assert ("POST '/v1/chat/completions' 200" in log) is logged
        assert "a-private-thing" not in complaint + log


def test_a_taken_port_is_one_line(jan: Jan, api: Api) -> None:
    done = jan("serve", "--port", str(api.port))
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.startswith(f"jan: port {api.port} is taken".encode())
    assert done.stdout == b""


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_this_machine_without_a_key_is_refused(jan: Jan, host: str) -> None:
    done = jan("serve", "--host", host, "--port", "0")
    assert done.returncode == 2
    assert b"--api-key-file" in done.stderr
    assert done.stdout == b""


def test_a_host_that_is_not_here_is_one_line(jan: Jan) -> None:
    done = jan("serve", "--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 2  # it is not loopback, and without a key that is the first thing wrong
    done = jan("serve", "--host", "no-such-host.invalid", "--port", "0")
    assert done.returncode == 1
    assert b"is not an address of this machine" in done.stderr


def test_with_a_key_the_key_is_needed(serving: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef0123\n")
    os.chmod(keys, 0o644)  # noqa: PTH101
    running = serving("--api-key-file", str(keys))
    with openai.OpenAI(base_url=running.url, api_key="wrong-wrong-wrong-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    with openai.OpenAI(base_url=running.url, api_key="0123456789abcdef0123", max_retries=0) as client:
        assert client.models.list().data
    load = [*PROGRAM, "models", "load", MODEL, "--server", running.url]
    for arguments, status in (([], 1), (["--api-key-file", str(keys)], 0)):
        done = subprocess.run([*load, *arguments], env=environment, capture_output=True, timeout=LIMIT, check=False)
        assert done.returncode == status, done.stderr
    status, complaint = running.end()
    assert status == 0
    assert "chmod 600" in complaint


def test_an_unreadable_key_file_is_refused(jan: Jan, tmp_path: Path) -> None:
    done = jan("serve", "--api-key-file", str(tmp_path / "none"))
    assert done.returncode == 2
    assert b"cannot read the key file" in done.stderr


def test_it_serves_on_though_nobody_reads_what_it_prints(environment: dict[str, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-more-than-sixteen\n")
    keys.chmod(0o644)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [*PROGRAM, "serve", "--port", str(port), "--api-key-file", str(keys)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(write)
        try:
            assert process.stderr is not None
            assert b"other users can read" in process.stderr.readline()  # said when it listens
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)) as connection:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()

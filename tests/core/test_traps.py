"""What pipes do to those who speak over them: a real process, over the event loop's transport and over the threads'."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .speaker import INITIALIZE, PROGRAM, TRANSPORTS, Speaker, speak

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)
GROWTH = 4.0
"""MiB that a client which does not read may cost."""

ODD = 'line\nline\r\n\t"q" \\ \u2028\u2029\x7f \u0000 é 漢字 😀 </script>'


def code(message: Any) -> int:
    return int(message["error"]["code"])


# -- bytes ----------------------------------------------------------------------------------------------------------


def test_odd_text_survives_however_its_bytes_arrive(transport: str) -> None:
    with speak(transport) as it:
        message = it.request(1, "test.echo", {"text": ODD})
        for size in (1, 7, 100, 333, 10_000):
            data = message * 3
            for at in range(0, len(data), size):
                it.send(data[at : at + size])
            assert [it.answer(1)["result"]["text"] for _ in range(3)] == [ODD] * 3


def test_blanks_around_and_between_messages_do_not_matter(transport: str) -> None:
    with speak(transport) as it:
        it.send(b'\n\r\n   \n {"id":10,"params":{"text":"x"},"method":"test.echo","jsonrpc":"2.0"} \r\n\n')
        assert it.receive() == {"id": 10, "result": {"text": "x"}, "jsonrpc": "2.0"}


def test_pretty_printed_json_is_refused_line_by_line_and_the_next_message_answered(transport: str) -> None:
    with speak(transport) as it:
        it.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}, indent=1).encode() + b"\n")
        assert [code(it.receive()) for _ in range(5)] == [-32700] * 5
        assert it.ask(2, "ping")["result"] == {}


def test_a_line_past_the_limit_is_refused_and_the_next_answered(transport: str) -> None:
    with speak(transport) as it:
        it.send(b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":"' + b"x" * (33 << 20) + b'"}}\n')
        refused = it.receive()
        assert (refused["id"], code(refused)) == (None, -32600)
        assert it.ask(2, "ping")["result"] == {}


def test_a_message_of_16_mib_goes_there_and_back(transport: str) -> None:
    text = "é漢\n" * ((16 << 20) // 6)
    with speak(transport) as it:
        sending = threading.Thread(target=it.send, args=(it.request(1, "test.echo", {"text": text}),))
        sending.start()
        assert it.answer(1)["result"]["text"] == text
        sending.join()


def test_a_request_and_its_cancellation_in_one_write_are_one_answer(transport: str) -> None:
    with speak(transport) as it:
        it.send(it.request(1, "test.hang") + b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}\n')
        assert code(it.receive()) == -32800
        assert it.ask(2, "ping")["id"] == 2


# -- a client that does not read --------------------------------------------------------------------------------------


def filled(it: Speaker, message: bytes) -> int:
    """Send a message again and again until no more is taken; returns how many whole ones went."""
    sent, many = 0, message * max(1, 65536 // len(message))
    while (taken := it.send(many, patience=1.0)) == len(many):
        sent += taken
        assert sent < 256 << 20, "it takes everything"
    sent += taken
    it.send(message[sent % len(message) :] if sent % len(message) else b"", patience=0.2)
    return sent // len(message)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", [0, 65_000])
def test_a_client_that_asks_without_reading_is_made_to_wait_and_loses_nothing(transport: str, size: int) -> None:
    with speak(transport) as it:
        message = it.request(1, "test.echo", {"text": "x" * size})
        for _ in range(20):
            it.send(message)
            it.answer(1)
        before = it.memory()
        sent = filled(it, message)
        assert it.memory() - before <= GROWTH
        assert sent > 10
        answered = 0
        while answered < sent:
            assert "result" in it.receive()
            answered += 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stream_that_is_not_read_waits_and_others_are_still_heard(transport: str) -> None:
    with speak(transport) as it:
        before = it.memory()
        it.send(it.request(1, "test.flood", {"value": 20_000_000}))
        it.send(it.request(2, "test.hang"))
        it.cancel(2)
        it.cancel(1)
        it.send(it.request(3, "ping"))
        assert it.memory() - before <= GROWTH
        answers: dict[int, Any] = {}
        while len(answers) < 3:
            message = it.receive()
            if "id" in message:
                answers[message["id"]] = message
        assert code(answers[1]) == code(answers[2]) == -32800
        assert answers[3]["result"] == {}


@pytest.mark.parametrize("how", ["exit", "close"])
@pytest.mark.parametrize("what", ["stream", "answers"])
def test_a_client_that_does_not_read_can_still_end(transport: str, how: str, what: str) -> None:
    with speak(transport) as it:
        if what == "stream":
            it.send(it.request(1, "test.flood", {"value": 20_000_000}))
        else:
            it.send(it.request(1, "test.echo", {"text": "x" * 60_000}) * 30)
        if how == "exit":
            it.send(b'{"jsonrpc":"2.0","method":"exit"}\n')
        else:
            assert it.process.stdin is not None
            it.process.stdin.close()
        assert it.ended() == 0


# -- the end --------------------------------------------------------------------------------------------------------


def test_nothing_an_extension_prints_reaches_the_wire(transport: str) -> None:
    with speak(transport, stderr=subprocess.PIPE) as it:
        assert it.ask(1, "test.noise")["result"] == "quiet"
        stdout, stderr = it.process.communicate(timeout=10)
    assert stdout == b""
    for noise in (b"print", b"os.write", b"puts", b"child ''"):
        assert noise in stderr


def test_exit_ends_the_process_with_status_0(transport: str) -> None:
    with speak(transport) as it:
        assert it.ask(1, "shutdown")["result"] is None
        it.send(b'{"jsonrpc":"2.0","method":"exit"}\n')
        assert it.ended() == 0


def test_at_the_end_of_input_what_runs_is_cancelled_and_answered(transport: str) -> None:
    with speak(transport) as it:
        it.send(it.request(1, "test.hang") + it.request(2, "test.later", {"text": "x"}))
        assert it.answer(2)["result"] == {"text": "x"}
        assert it.process.stdin is not None
        it.process.stdin.close()
        assert code(it.answer(1)) == -32800
        with pytest.raises(EOFError):
            it.line()
        assert it.ended() == 0


def test_a_client_that_closes_its_reading_end_ends_the_process(transport: str) -> None:
    with speak(transport) as it:
        assert it.process.stdout is not None
        it.process.stdout.close()
        it.send(it.request(1, "ping"))
        assert it.ended() == 0


# -- other than pipes -------------------------------------------------------------------------------------------------


def run(transport: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, str(PROGRAM), transport], timeout=10, check=True, **options)


def answers(output: bytes) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


def test_input_from_a_file_is_answered_to_its_end(transport: str, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_bytes(INITIALIZE + b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n' * 5_000)
    with script.open("rb") as file:
        got = answers(run(transport, stdin=file, capture_output=True).stdout)
    assert len(got) == 5_001
    assert all("result" in message for message in got)


def test_output_into_a_file_is_whole(transport: str, tmp_path: Path) -> None:
    written = tmp_path / "out.jsonl"
    with written.open("wb") as file:
        run(transport, input=INITIALIZE + b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n', stdout=file)
    assert [message["id"] for message in answers(written.read_bytes())] == [0, 1]


def test_no_input_at_all_is_an_end(transport: str) -> None:
    assert run(transport, stdin=subprocess.DEVNULL, capture_output=True).stdout == b""


def test_a_terminal_can_be_typed_into(transport: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(PROGRAM), transport]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        assert process.stdout is not None
        os.write(ours, INITIALIZE)
        assert json.loads(process.stdout.readline())["id"] == 0
        os.write(ours, b"\x04")  # the end of input, at the beginning of a line
        assert process.wait(5) == 0
    os.close(ours)


@pytest.mark.parametrize("pairs", [1, 2])
def test_sockets_serve_as_well_one_for_both_directions_or_one_each(transport: str, pairs: int) -> None:
    made = [socket.socketpair() for _ in range(pairs)]
    (ours_in, theirs_in), (ours_out, theirs_out) = made[0], made[-1]
    command = [sys.executable, str(PROGRAM), transport]
    with subprocess.Popen(
        command, stdin=theirs_in.fileno(), stdout=theirs_out.fileno(), stderr=subprocess.DEVNULL
    ) as process:
        try:
            for pair in made:
                pair[1].close()
            it = Speaker(process, ours_in.fileno(), ours_out.fileno())
            assert it.ask(0, "initialize")["id"] == 0
            assert it.ask(1, "test.echo", {"text": "x" * 300_000})["result"]["text"] == "x" * 300_000
            ours_in.close()
            assert it.ended() == 0
        finally:
            process.kill()
            for pair in made:
                pair[0].close()


@pytest.mark.parametrize("blocking", [True, False])
def test_descriptors_are_left_in_the_mode_they_came_in(transport: str, blocking: bool) -> None:
    (their_read, our_write), (our_read, their_write) = os.pipe(), os.pipe()
    shared = (their_read, their_write)
    for fd in shared:
        os.set_blocking(fd, blocking)
    command = [sys.executable, str(PROGRAM), transport]
    with subprocess.Popen(command, stdin=their_read, stdout=their_write, stderr=subprocess.DEVNULL) as process:
        it = Speaker(process, our_write, our_read)
        assert it.ask(0, "initialize")["id"] == 0
        os.close(our_write)
        assert it.ended() == 0
    assert [os.get_blocking(fd) for fd in shared] == [blocking, blocking]
    for fd in (*shared, our_read):
        os.close(fd)


@pytest.mark.parametrize("closed", [0, 1])
def test_without_a_standard_input_or_output_it_says_so(transport: str, closed: int) -> None:
    code = f"import os; os.close({closed}); from jan_core.rpc import stdio; stdio.claim()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, stdin=subprocess.PIPE, timeout=10)
    assert b"RuntimeError: there is no standard input and output" in done.stderr


def test_without_a_standard_error_it_serves_all_the_same(transport: str) -> None:
    code = f"import os, sys; os.close(2); os.execv({sys.executable!r}, {[sys.executable, str(PROGRAM), transport]!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=INITIALIZE + b'{"jsonrpc":"2.0","id":1,"method":"test.noise"}\n',
        stdout=subprocess.PIPE,
        timeout=10,
    )
    assert [message["id"] for message in answers(done.stdout)] == [0, 1]

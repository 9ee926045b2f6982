"""Server-sent events to the letter, and how the server stops."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from jan_sidecar.http.server import ServeError

from .conftest import Api, ServeApi
from .scripted import MODEL

Start = Callable[..., http.client.HTTPConnection]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(api, order)` sends a streaming request; the response is yet to be read."""
    with ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(closing(_start(*args, **more)))


def _start(api: Api, order: str, path: str = "/v1/chat/completions", **more: Any) -> http.client.HTTPConnection:
    body: dict[str, Any] = {"model": MODEL, "stream": True, **more}
    body |= {"prompt": order} if path == "/v1/completions" else {"messages": [{"role": "user", "content": order}]}
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=15)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_a_stream_is_data_lines_blank_lines_and_done(api: Api, start: Start) -> None:
    response = start(api, "count 3").getresponse()
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = response.read().split(b"\n\n")
    assert events.pop() == b""
    assert events.pop() == b"data: [DONE]"
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert [c["choices"][0]["delta"] for c in chunks] == [
        {"role": "assistant"},
        {"content": "1 "},
        {"content": "2 "},
        {"content": "3 "},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, None, "stop"]
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert set(chunk) == {"id", "object", "created", "model", "choices"}


def test_asked_for_usage_is_null_until_the_last_chunk(api: Api, start: Start) -> None:
    response = start(api, "count 2", stream_options={"include_usage": True}).getresponse()
    chunks = [json.loads(line[6:]) for line in response if line.startswith(b"data: {")]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 5


def test_what_fails_before_the_first_token_is_an_ordinary_error(api: Api, start: Start) -> None:
    for order, status in (("busy", 503), ("defect", 500), ("overflow", 400)):
        response = start(api, order).getresponse()
        assert response.status == status
        assert response.headers["content-type"] == "application/json"
        assert json.load(response)["error"]["message"]


def test_what_fails_later_is_an_error_event_and_the_stream_is_not_called_done(api: Api, start: Start) -> None:
    response = start(api, "fail after 2").getresponse()
    assert response.status == 200
    lines = [line for line in response.read().split(b"\n") if line]
    error = json.loads(lines[-1].removeprefix(b"data: "))["error"]
    assert error == {"message": "the worker ended", "type": "server_error", "param": None, "code": "worker_died"}
    assert b"data: [DONE]" not in lines


def test_text_completions_stream_the_same_way(api: Api, start: Start) -> None:
    response = start(api, "count 2", "/v1/completions").getresponse()
    lines = [line for line in response.read().split(b"\n") if line]
    assert lines.pop() == b"data: [DONE]"
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert [c["choices"][0]["text"] for c in chunks] == ["1 ", "2 ", ""]
    assert all(c["object"] == "text_completion" for c in chunks)


def test_tokens_arrive_one_by_one_not_at_the_end(api: Api, start: Start) -> None:
    connection = start(api, "hang after 2")
    response = connection.getresponse()
    seen: list[bytes] = []
    while b'"2 "' not in b"".join(seen):
        seen.append(response.readline())
    assert api.engine.running == 1  # the answer is still being made
    response.close()
    connection.close()
    assert api.engine.cancelled.wait(10)


def test_silence_is_filled_with_comments(serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setattr("jan_sidecar.http.sse.QUIET", 0.15)
    with serve_api() as api:
        connection = start(api, "hang after 0")
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline() == b": waiting\n"
        response.close()
        connection.close()
        assert api.engine.cancelled.wait(10)


def test_a_client_that_does_not_read_is_given_up(serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jan_sidecar.http.sse.STALLED", 0.3)
    with serve_api() as api:
        order = "count 2000000"
        body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": order}]})
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", api.port))
            sock.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            assert api.engine.cancelled.wait(15)
            assert api.engine.sent < 1_000_000


def test_a_stalled_reader_does_not_hold_up_others(api: Api, start: Start) -> None:
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "count 2000000"}]})
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", api.port))
        sock.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        # Once its buffers are full it sends no more, and memory with it.
        before = -1
        while before != api.engine.sent:
            before = api.engine.sent + 7  # those of the request below: a role, five numbers, an end
            assert start(api, "count 5").getresponse().read().endswith(b"data: [DONE]\n\n")
        assert api.engine.sent < 1_000_000
    assert api.engine.cancelled.wait(10)


def test_a_client_that_leaves_a_fast_stream_cancels_it(api: Api, start: Start) -> None:
    connection = start(api, "count 3000000")
    response = connection.getresponse()
    assert response.readline().startswith(b"data: ")
    response.close()
    connection.close()
    assert api.engine.cancelled.wait(10)
    assert api.engine.sent < 1_000_000


def test_a_pipelining_client_that_leaves_cancels_the_answer_under_way(api: Api) -> None:
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hang after 1"}]})
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    with socket.create_connection(("127.0.0.1", api.port)) as sock:
        sock.sendall(request + request)
        assert api.engine.hanging.wait(10)
    assert api.engine.cancelled.wait(10)
    assert len(api.engine.requests) == 1


def test_stopping_lets_an_answer_finish(serve_api: ServeApi, start: Start) -> None:
    with serve_api() as api:
        connection = start(api, "work 20 slowly", stream=False)
        assert api.engine.working.wait(10)
        api.stop()
        assert json.load(connection.getresponse())["choices"][0]["message"]["content"] == "done"
        api.thread.join(10)
        assert not api.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", api.port))


def test_stopping_ends_what_does_not_finish_and_says_so(serve_api: ServeApi, start: Start) -> None:
    with serve_api(grace=0.2) as api:
        connection = start(api, "hang after 1")
        response = connection.getresponse()
        assert api.engine.hanging.wait(10)
        api.stop()
        lines = [line for line in response.read().split(b"\n") if line]
        assert json.loads(lines[-1].removeprefix(b"data: "))["error"]["code"] == "shutting_down"
        api.thread.join(10)
        assert not api.thread.is_alive()
        assert api.engine.cancelled.is_set()


@pytest.mark.parametrize("stream", [False, True])
def test_stopping_answers_a_request_that_has_no_answer_yet(serve_api: ServeApi, start: Start, stream: bool) -> None:
    with serve_api(grace=0.2) as api:
        connection = start(api, "hang after 0", stream=stream)
        assert api.engine.hanging.wait(10)
        api.stop()
        response = connection.getresponse()
        assert response.status == 503
        assert json.load(response)["error"]["code"] == "shutting_down"


def test_a_taken_port_is_one_clear_line(serve_api: ServeApi, api: Api) -> None:
    with pytest.raises(ServeError, match=f"port {api.port} is taken"):
        with serve_api(port=api.port):
            pass


def test_localhost_is_served_on_every_loopback_this_machine_has(serve_api: ServeApi) -> None:
    with serve_api(host="localhost") as api:
        for family, address in {
            (i[0], i[4][0]) for i in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
        }:
            with socket.socket(family) as sock:
                sock.settimeout(5)
                if sock.connect_ex((str(address), api.port)) and family == socket.AF_INET6:
                    continue  # a machine with ::1 in its hosts file and no IPv6
                sock.sendall(f"GET /health HTTP/1.1\r\nHost: localhost:{api.port}\r\n\r\n".encode())
                assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_body_that_is_never_completed_does_not_hold_up_the_end(serve_api: ServeApi) -> None:
    with serve_api(grace=0.2) as api, socket.create_connection(("127.0.0.1", api.port), timeout=10) as sock:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nExpect: 100-continue\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100")  # the server waits for the body now
        sock.sendall(b"{")
        api.stop()
        answer = b""
        while part := sock.recv(65536):
            answer += part
        assert b" 503 " in answer.split(b"\r\n")[0]

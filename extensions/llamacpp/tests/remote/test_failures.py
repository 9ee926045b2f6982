"""Remote engines against a real server on loopback: every way of not getting an answer, and what is tried again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import jan_llamacpp.remote.connection as connection
import pytest

from jan_core import RpcError
from jan_core.types import ChatChunk

from ..endpoint import Answer, Endpoint, chunk, head, reply, sse, streamed, text_chunks
from .asking import KEY, add, ask, question, refused

pytestmark = pytest.mark.anyio


# -- before the first byte: tried again --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_busy_endpoint_is_asked_again(client: Any, endpoint: Endpoint, status: str) -> None:
    busy = reply(status, '{"error": {"message": "slow down"}}', "Retry-After: 0")
    endpoint.answers = [busy, busy, streamed(text_chunks("at last"))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].message.content == "at last"
    assert len(endpoint.asked) == 3


async def test_a_connection_lost_before_an_answer_is_made_again(client: Any, endpoint: Endpoint) -> None:
    async def hang_up(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        return None

    endpoint.answers = [hang_up, streamed(text_chunks("second"))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].message.content == "second"


async def test_retries_end_and_the_last_failure_is_told(client: Any, endpoint: Endpoint) -> None:
    error = await refused(client, endpoint, reply("429 Too Many Requests", b"", "Retry-After: 0"), retries=2)
    assert (error.type, error.retryable, error.data["retry_after"]) == ("remote_busy", True, 0)
    assert len(endpoint.asked) == 3


async def test_an_endpoint_that_asks_for_a_long_pause_is_not_waited_for(client: Any, endpoint: Endpoint) -> None:
    error = await refused(client, endpoint, reply("503 Service Unavailable", b"", "Retry-After: 3600"), retries=5)
    assert (error.type, error.data["retry_after"], len(endpoint.asked)) == ("remote_busy", 3600, 1)


async def test_nobody_listening_is_told_after_the_retries(client: Any, endpoint: Endpoint) -> None:
    async with Endpoint().serving() as closed:
        pass
    await add(client, closed, retries=1)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("remote_unreachable", "connect")


async def test_an_answer_that_does_not_begin_in_time_is_given_up_and_not_asked_for_again(
    client: Any, endpoint: Endpoint
) -> None:
    async def silence(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        await endpoint.left.wait()

    error = await refused(client, endpoint, silence, first_byte_seconds=0.2, connect_seconds=0.2)
    assert (error.type, error.data["reason"], len(endpoint.asked)) == ("remote_unreachable", "timeout", 1)


# -- after the first byte: never ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False], ids=["a clean end", "a broken connection"])
async def test_half_an_answer_is_an_error_and_no_short_answer(client: Any, endpoint: Endpoint, whole: bool) -> None:
    error = await refused(client, endpoint, streamed(sse(chunk("half")), whole=whole))
    assert (error.type, error.data["reason"], len(endpoint.asked)) == ("remote_interrupted", "truncated", 1)


async def test_a_stream_without_an_end_mark_is_whole_when_the_model_said_why_it_ended(
    client: Any, endpoint: Endpoint
) -> None:
    endpoint.answers = [streamed(sse(chunk("all"), chunk(finish_reason="length")))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].finish_reason == "length"


async def test_a_stream_that_goes_silent_is_ended(client: Any, endpoint: Endpoint) -> None:
    silent = streamed(sse(chunk("half")), then=lambda e: e.left.wait())
    error = await refused(client, endpoint, silent, idle_seconds=0.2)
    assert (error.type, error.data["reason"], len(endpoint.asked)) == ("remote_interrupted", "idle", 1)
    with anyio.fail_after(10):
        await endpoint.left.wait()


async def test_cancelling_closes_the_connection(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [streamed(sse(chunk("one")), then=lambda e: e.left.wait())]
    await add(client, endpoint)
    with anyio.fail_after(30):
        async with client.stream("chat.complete", question(stream=True), item=ChatChunk) as stream:
            async for _ in stream:
                break
        await endpoint.left.wait()


async def test_an_error_amid_the_stream_is_the_answers_error(client: Any, endpoint: Endpoint) -> None:
    events = sse(chunk("half"), {"error": {"message": f"overheated, {KEY}", "code": 500}})
    error = await refused(client, endpoint, streamed(events), key=KEY)
    assert error.type == "remote_failed"
    assert "overheated, (the key)" in error.message


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type"),
    [
        ("400 Bad Request", "remote_refused"),
        ("401 Unauthorized", "remote_auth_failed"),
        ("403 Forbidden", "remote_auth_failed"),
        ("404 Not Found", "remote_model_not_found"),
        ("413 Content Too Large", "remote_refused"),
        ("422 Unprocessable Content", "remote_refused"),
        ("500 Internal Server Error", "remote_failed"),
        ("502 Bad Gateway", "remote_failed"),
        ("504 Gateway Timeout", "remote_failed"),
    ],
)
async def test_a_refusal_has_its_own_error_with_the_endpoints_words_and_without_the_key(
    client: Any, endpoint: Endpoint, status: str, type: str
) -> None:
    said = json.dumps({"error": {"message": f"no:\u001b[31m\n{KEY}{'!' * 5000}"}})
    error = await refused(client, endpoint, reply(status, said), key=KEY)
    assert error.type == type
    assert error.data["remote"] == "there"
    assert error.data["status"] == int(status[:3])
    assert "no: [31m (the key)!" in error.message
    assert len(error.message) < 400
    assert len(endpoint.asked) == 1


async def test_a_refusal_in_html_is_not_quoted(client: Any, endpoint: Endpoint) -> None:
    error = await refused(client, endpoint, reply("502 Bad Gateway", "<html>nginx</html>", kind="text/html"))
    assert (error.type, error.message) == ("remote_failed", "there failed (502)")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply("200 OK", "<html>Welcome to our WiFi", kind="text/html; charset=utf-8"), "web_page"),
        (reply("511 Network Authentication Required", "<html>", kind="text/html"), "web_page"),
        (reply("302 Found", b"", "Location: http://127.0.0.2:9/steal"), "redirect"),
        (reply("307 Temporary Redirect", b"", "Location: /v1/elsewhere"), "redirect"),
        (reply("200 OK", b"\x1f\x8b\x08", "Content-Encoding: gzip", kind="text/event-stream"), "encoding"),
        (reply("200 OK", "[1, 2]"), "malformed"),
        (reply("204 No Content"), "malformed"),
        (streamed(sse(b'{"choices": [')), "malformed"),
        (streamed(sse(b"\xff\xfe{}")), "malformed"),
        (streamed(sse(b"[" * 5000)), "malformed"),
        (streamed(sse({"choices": [{"index": 10**9, "delta": {}}]})), "malformed"),
        (streamed(sse({"choices": "none"})), "malformed"),
        (streamed(b"data: " + b"x" * (2 << 20)), "limit"),
        (streamed(b"data: x\n" * (1 << 18)), "limit"),
        (streamed(b": " + b"x" * (2 << 20)), "limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_answer_is_refused_by_its_kind(
    client: Any, endpoint: Endpoint, answer: Answer, reason: str
) -> None:
    error = await refused(client, endpoint, answer, key=KEY)
    assert (error.type, error.data["reason"], len(endpoint.asked)) == ("remote_answer_invalid", reason, 1)


async def test_an_endless_answer_is_ended_at_its_limit(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGEST_STREAM", 100_000)

    async def endless(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", "Content-Type: text/event-stream", "Connection: close"))
        while not endpoint.left.is_set():
            writer.write(sse(chunk("x")))
            await writer.drain()

    error = await refused(client, endpoint, endless)
    assert (error.type, error.data["reason"]) == ("remote_answer_invalid", "limit")


async def test_headers_without_end_are_refused(client: Any, endpoint: Endpoint) -> None:
    async def flood(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20))

    error = await refused(client, endpoint, flood, retries=0)
    assert (error.type, error.data["reason"]) == ("remote_unreachable", "lost")

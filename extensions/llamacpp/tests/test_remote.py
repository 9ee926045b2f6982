"""Remote engines against a real server on loopback: answers, and every way of not getting one."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import asyncio
import json
import ssl
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import jan_llamacpp.remote.connection as connection
import jan_llamacpp.remote.retry as retry
import pytest
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import Event, RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import ChatChunk, ChatCompletion

from .endpoint import Answer, Endpoint, chunk, head, reply, sse, streamed, text_chunks

pytestmark = pytest.mark.anyio

MANIFEST = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
PREFIXES = MANIFEST["tool"]["jan"]["extension"]["methods"]
KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"
WHOLE = json.dumps({"choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]})
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


class Listener:
    """Hears what the house is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @hookimpl
    def jan_event(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().serving() as serving:
        yield serving


@pytest.fixture
async def client(
    open_host: OpenHost, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A client of a house whose policy lets requests leave, without a keyring."""
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    sources = [InlineSource("llamacpp", LlamaCppExtension, PREFIXES), InlineSource("listener", listener)]
    try:
        async with open_host(sources=sources, data_dir=tmp_path / "data") as host:
            client = host.client()
            assert "on this machine" in (await client.call("remotes.list"))["kept_here"], "by default"
            values = {"routing": "remote-allowed"}
            await client.call("settings.set", {"extension": "llamacpp", "values": values})
            yield client
    finally:
        keyring.set_keyring(before)


async def add(client: Any, endpoint: Endpoint, *, key: str | None = None, **more: Any) -> Any:
    remote = {"id": "there", "base_url": endpoint.base_url, **more}
    return await client.call("remotes.add", {"remote": remote, "key": key, "replace": True})


def question(**more: Any) -> dict[str, Any]:
    return {"model": "there/m", "messages": [{"role": "user", "content": "Hello"}], **more}


async def ask(client: Any, **more: Any) -> ChatCompletion:
    with anyio.fail_after(30):
        answer: ChatCompletion = await client.call("chat.complete", question(**more), result=ChatCompletion)
    return answer


async def refused(client: Any, endpoint: Endpoint, answer: Answer, **remote: Any) -> RpcError:
    """The error that an answer comes to."""
    endpoint.answers = [answer]
    await add(client, endpoint, **remote)
    with pytest.raises(RpcError) as caught:
        await ask(client, stream=True)
    assert KEY not in str(caught.value.to_object())
    return caught.value


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_streamed_from_the_endpoint_and_says_who_gave_it(client: Any, endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    endpoint.answers = [streamed(text_chunks("Hel", "lo", usage=usage))]
    await add(client, endpoint, key=KEY)
    asked = question(stream=True, stream_options={"include_usage": True}, temperature=0.5, max_tokens=9)
    async with client.stream("chat.complete", asked, item=ChatChunk, result=ChatCompletion) as stream:
        chunks = [chunk async for chunk in stream]
        answer = await stream.result()
    assert [c.text() for c in chunks] == ["Hel", "lo", "", ""]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], answer.usage)
    assert {c.model for c in chunks} == {answer.model} == {"there/m"}
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    [request] = endpoint.asked
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert request.json == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
    }


async def test_what_is_the_houses_own_stays_here(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [streamed(text_chunks("x"))]
    await add(client, endpoint)
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "tool_calls": [call], "reasoning_content": "private"},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    await ask(client, messages=messages, thread_id="t-secret", sensitivity="normal", cache_prompt=True)
    [request] = endpoint.asked
    assert set(request.json) == {"model", "messages", "stream", "stream_options"}
    assert [sorted(m) for m in request.json["messages"]] == [
        ["content", "role"],
        ["role", "tool_calls"],
        ["content", "role", "tool_call_id"],
    ]
    assert "index" not in request.json["messages"][1]["tool_calls"][0]
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


async def test_tool_calls_come_in_parts_and_are_whole_in_the_end(client: Any, endpoint: Endpoint) -> None:
    def part(**call: Any) -> dict[str, Any]:
        return chunk(delta={"tool_calls": [{"index": 0, **call}]})

    events = sse(
        part(id="c1", type="function", function={"name": "add", "arguments": ""}),
        part(function={"arguments": '{"a"'}),
        part(id=None, function={"name": None, "arguments": ": 1}"}),
        chunk(finish_reason="tool_calls"),
        b"[DONE]",
    )
    endpoint.answers = [streamed(events)]
    await add(client, endpoint)
    async with client.stream("chat.complete", question(stream=True), item=ChatChunk, result=ChatCompletion) as stream:
        parts = [c.choices[0].delta.tool_calls or [] async for c in stream]
        answer = await stream.result()
    assert "".join(call.function.arguments for calls in parts for call in calls) == '{"a": 1}'
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "add", '{"a": 1}')


async def test_an_endpoint_that_does_not_stream_answers_all_the_same(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [reply("200 OK", WHOLE)]
    await add(client, endpoint)
    answer = await ask(client)
    assert answer.choices[0].message.content == "whole"


async def test_comments_odd_line_ends_and_a_missing_last_blank_line_do_no_harm(client: Any, endpoint: Endpoint) -> None:
    body = b"\xef\xbb\xbf: PROCESSING\r\n\r\nevent: x\r\nid: 1\r\n" + sse(chunk("a"), chunk("\u00e9")).replace(
        b"\n", b"\r\n"
    )
    body += sse(chunk(finish_reason="stop")) + b"data: [DONE]"
    endpoint.answers = [streamed(*(body[i : i + 3] for i in range(0, len(body), 3)))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].message.content == "a\u00e9"


async def test_reasoning_is_kept_apart_under_either_name(client: Any, endpoint: Endpoint) -> None:
    events = [
        chunk(delta={"reasoning_content": "hm"}),
        chunk(delta={"reasoning": "m"}),
        chunk("yes", finish_reason="stop"),
    ]
    endpoint.answers = [streamed(sse(*events, b"[DONE]"))]
    await add(client, endpoint)
    message = (await ask(client)).choices[0].message
    assert (message.reasoning_content, message.content) == ("hmm", "yes")


async def test_everybody_is_told_before_a_request_leaves(client: Any, endpoint: Endpoint, listener: Listener) -> None:
    endpoint.answers = [streamed(text_chunks("x"))]
    await add(client, endpoint)
    seen: list[str] = []
    with anyio.fail_after(30):
        await client.call(
            "chat.complete", question(thread_id="t1"), progress=lambda text, done, total: seen.append(text)
        )
        while not any(event.name == "remotes.asked" for event in listener.events):
            await anyio.lowlevel.checkpoint()
    assert "asking there: this leaves the machine, to 127.0.0.1" in seen
    [event] = [event for event in listener.events if event.name == "remotes.asked"]
    assert event.data.remote == "there"
    assert event.data.origin == f"http://127.0.0.1:{endpoint.port}"
    assert (event.data.model, event.data.thread_id, event.data.local) == ("there/m", "t1", False)


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


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority() -> Any:
    import trustme

    return trustme.CA()


@pytest.fixture
async def secure(authority: Any) -> AsyncIterator[Endpoint]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    async with Endpoint().serving(context) as endpoint:
        endpoint.answers = [streamed(text_chunks("in private"))]
        yield endpoint


async def test_a_certificate_nobody_vouches_for_is_refused_and_nothing_is_sent(client: Any, secure: Endpoint) -> None:
    await add(client, secure, key=KEY)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert (caught.value.type, caught.value.data["reason"]) == ("remote_unreachable", "tls")
    assert secure.asked == []


async def test_a_configured_authority_is_trusted(client: Any, secure: Endpoint, authority: Any, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    await add(client, secure, key=KEY, ca_file=str(ca_file))
    assert (await ask(client)).choices[0].message.content == "in private"
    by_name = secure.base_url.replace("127.0.0.1", "localhost")
    await add(client, secure, key=KEY, ca_file=str(ca_file), base_url=by_name)
    assert (await ask(client)).choices[0].message.content == "in private"
    assert secure.asked[-1].headers["host"] == f"localhost:{secure.port}"


async def test_a_certificate_for_another_name_is_refused(client: Any, authority: Any, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with Endpoint().serving(context) as endpoint:
        await add(client, endpoint, ca_file=str(ca_file))
        with pytest.raises(RpcError) as caught:
            await ask(client)
    assert (caught.value.data["reason"], endpoint.asked) == ("tls", [])


@pytest.mark.parametrize("ca_file", ["relative.pem", "/nowhere/ca.pem"])
async def test_a_ca_file_that_cannot_be_used_is_said(client: Any, secure: Endpoint, ca_file: str) -> None:
    await add(client, secure, ca_file=ca_file)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "invalid_params"


async def test_no_proxy_certificate_or_password_of_the_environment_is_used(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password theirs\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    endpoint.answers = [streamed(text_chunks("direct"))]
    await add(client, endpoint)
    assert (await ask(client)).choices[0].message.content == "direct"
    assert "authorization" not in endpoint.asked[0].headers


async def test_a_configured_proxy_is_used_for_tls(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [reply("407 Proxy Authentication Required")]
    remote = {"base_url": "https://api.invalid/v1", "proxy": f"http://127.0.0.1:{endpoint.port}", "retries": 0}
    await add(client, endpoint, key=KEY, **remote)
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "remote_unreachable"
    [request] = endpoint.asked
    assert (request.method, request.path) == ("CONNECT", "api.invalid:443")
    assert "authorization" not in request.headers


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com/v1",
        "http://192.168.0.7/v1",
        "http://127.1/v1",
        "http://2130706433/v1",
        "http://0x7f.1/v1",
        "http://0.0.0.0/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://localhost.example.com/v1",
        "http://localhost./v1",
        "http://127.0.0.1@evil.example/v1",
        "http://127.0.0.1\\@evil.example/v1",
        "https://user:secret@api.example.com/v1",
        "https://api.example.com/v1?key=secret",
        "https://api.example.com/v1#x",
        "https://api.example.com:99999/v1",
        "https://b\u00fccher.example/v1",
        "https:///v1",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "127.0.0.1:8080",
        "https://api.example.com/ v1",
        "https://api.example.com/\nv1",
        "",
    ],
)
async def test_an_address_that_is_not_safe_is_refused_when_it_is_given(client: Any, base_url: str) -> None:
    for values in ({"base_url": base_url}, {"base_url": "https://127.0.0.1/v1", "proxy": base_url or "x"}):
        if "proxy" in values and base_url.startswith("http://") and "@" not in base_url and "\\" not in base_url:
            continue  # a proxy only sees TLS records: plain http will do
        with pytest.raises(RpcError) as caught:
            await client.call("remotes.add", {"remote": {"id": "there", **values}})
        assert caught.value.type == "invalid_params"
        changes = {"remotes": [{"id": "there", **values}]}
        with pytest.raises(RpcError) as caught:
            await client.call("settings.set", {"extension": "llamacpp", "values": changes})
        assert caught.value.type == "invalid_params"
    assert (await client.call("remotes.list"))["remotes"] == []


async def test_localhost_is_this_machine_without_a_lookup(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    looked_up: list[Any] = []
    real = socket.getaddrinfo

    def spy(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    async with Endpoint().serving(host="::1") as six:
        for serving in (endpoint, six):
            serving.answers = [streamed(text_chunks("here"))]
            await add(client, serving, base_url=f"http://localhost:{serving.port}/v1")
            assert (await ask(client)).choices[0].message.content == "here"
            assert serving.asked[-1].headers["host"] == f"localhost:{serving.port}"
    assert {"localhost"}.isdisjoint(looked_up)


# -- the methods and the key -------------------------------------------------------------------------------------------


async def test_a_remote_is_added_listed_tested_and_removed(client: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answers = [reply("200 OK", '{"object": "list", "data": [{"id": "m"}, {"id": "n"}]}')]
    added = await add(client, endpoint, key=KEY, models=["m"])
    assert added["key"] == "file"
    listed = await client.call("remotes.list")
    assert listed == {"remotes": [added], "kept_here": ""}
    tested = await client.call("remotes.test", {"id": "there"})
    assert (tested["models"], tested["key"]) == (["m", "n"], "file")
    assert (endpoint.asked[0].method, endpoint.asked[0].path) == ("GET", "/v1/models")
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    keys = tmp_path / "data" / "llamacpp" / "keys"
    assert [path.name for path in keys.iterdir()] == ["there.json"]
    assert await client.call("remotes.remove", {"id": "there"}) == {}
    assert (await client.call("remotes.list"))["remotes"] == []
    assert list(keys.iterdir()) == []
    for name in ("remotes.remove", "remotes.test"):
        with pytest.raises(RpcError) as caught:
            await client.call(name, {"id": "there"})
        assert (caught.value.type, caught.value.data["known"]) == ("remote_not_found", [])


async def test_the_key_is_in_no_setting_no_answer_no_log_and_in_a_file_of_its_owners_alone(
    client: Any, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    endpoint.answers = [streamed(text_chunks("x"))]
    answers = [await add(client, endpoint, key=KEY), await client.call("remotes.list")]
    await ask(client)
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    answers += [await client.call("settings.get"), await client.call("settings.schema")]
    assert KEY not in json.dumps(answers)
    assert KEY not in caplog.text
    holding = [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert [p.name for p in holding] == ["there.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    assert holding[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["readable", "link", "folder", "gone", "garbage"])
async def test_a_key_file_that_is_not_its_owners_alone_is_not_used(
    client: Any, endpoint: Endpoint, tmp_path: Path, damage: str
) -> None:
    endpoint.answers = [streamed(text_chunks("x"))]
    await add(client, endpoint, key=KEY)
    path = tmp_path / "data" / "llamacpp" / "keys" / "there.json"
    if damage == "readable":
        path.chmod(0o640)
    elif damage == "garbage":
        path.write_bytes(b"\xff{")
    else:
        path.rename(path.with_suffix(".moved"))
        if damage == "link":
            path.symlink_to(path.with_suffix(".moved"))
        elif damage == "folder":
            path.mkdir()
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert caught.value.type == "remote_key_unavailable"
    assert KEY not in str(caught.value.to_object())
    assert endpoint.asked == []


async def test_a_key_goes_to_no_other_address_than_the_one_it_was_given_for(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint, key=KEY)
    async with Endpoint().serving() as thief:
        thief.answers = [streamed(text_chunks("x"))]
        row = {"id": "there", "base_url": thief.base_url, "key": "file"}
        await client.call("settings.set", {"extension": "llamacpp", "values": {"remotes": [row]}})
        with pytest.raises(RpcError) as caught:
            await ask(client)
        assert (caught.value.type, thief.connections) == ("remote_key_unavailable", 0)


async def test_a_changed_address_loses_the_key_and_a_changed_limit_keeps_it(
    client: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    await add(client, endpoint, key=KEY)
    assert (await add(client, endpoint, retries=0))["key"] == "file"
    async with Endpoint().serving() as other:
        assert (await add(client, other)).get("key", "none") == "none"
    assert list((tmp_path / "data" / "llamacpp" / "keys").iterdir()) == []


async def test_two_of_one_id_are_refused_unless_one_replaces_the_other(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint)
    for id in ("there", "llamacpp"):
        with pytest.raises(RpcError) as caught:
            await client.call("remotes.add", {"remote": {"id": id, "base_url": endpoint.base_url}})
        assert caught.value.type == "remote_exists"


async def test_a_key_goes_to_the_systems_keyring_where_there_is_one(
    client: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    import keyring
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        """A keyring in memory."""

        priority = 5
        kept: dict[tuple[str, str], str]
        locked = False

        def get_password(self, service: str, username: str) -> str | None:
            if self.locked:
                raise keyring.errors.KeyringLocked("no")
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    ring = Ring()  # type: ignore[no-untyped-call]
    ring.kept = {}
    keyring.set_keyring(ring)
    endpoint.answers = [streamed(text_chunks("x"))]
    assert (await add(client, endpoint, key=KEY))["key"] == "keyring"
    assert ring.kept == {("jan remote engine", f"there http://127.0.0.1:{endpoint.port}"): KEY}
    assert [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()] == []
    await ask(client)
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    ring.locked = True
    with pytest.raises(RpcError) as caught:
        await ask(client)
    assert (caught.value.type, len(endpoint.asked)) == ("remote_key_unavailable", 1)
    ring.locked = False
    await client.call("remotes.remove", {"id": "there"})
    assert ring.kept == {}


async def test_without_the_library_of_keyrings_the_file_is_used(
    client: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "keyring", None)
    assert (await add(client, endpoint, key=KEY))["key"] == "file"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "\u00fcmlaut", "x" * 5000])
async def test_a_key_that_fits_no_header_is_refused_without_being_quoted(
    client: Any, endpoint: Endpoint, key: str
) -> None:
    with pytest.raises(RpcError) as caught:
        await add(client, endpoint, key=key)
    assert caught.value.type == "invalid_params"
    assert not key or key not in str(caught.value.to_object())


@pytest.mark.parametrize(
    ("answer", "type"),
    [
        (reply("401 Unauthorized"), "remote_auth_failed"),
        (reply("200 OK", '{"models": 3, "data": 5}'), "remote_answer_invalid"),
        (reply("200 OK", "<html>", kind="text/html"), "remote_answer_invalid"),
    ],
)
async def test_a_test_says_what_is_wrong(client: Any, endpoint: Endpoint, answer: Answer, type: str) -> None:
    endpoint.answers = [answer]
    await add(client, endpoint)
    with pytest.raises(RpcError) as caught:
        await client.call("remotes.test", {"id": "there"})
    assert caught.value.type == type


async def test_an_endpoint_that_lists_no_models_passes_the_test(client: Any, endpoint: Endpoint) -> None:
    endpoint.answers = [reply("404 Not Found")]
    await add(client, endpoint)
    assert (await client.call("remotes.test", {"id": "there"}))["models"] == []


async def test_only_the_models_that_were_named_may_be_asked_for(client: Any, endpoint: Endpoint) -> None:
    await add(client, endpoint, models=["n"])
    with pytest.raises(RpcError) as caught:
        await client.call("remotes.complete", question())
    assert (caught.value.type, caught.value.data["known"]) == ("remote_model_not_found", ["n"])
    assert endpoint.asked == []


def test_nothing_heavy_is_imported_before_a_remote_is_asked() -> None:
    import subprocess
    import sys

    program = (
        "import sys, jan_llamacpp.plugin; from jan_llamacpp.plugin import LlamaCppExtension; LlamaCppExtension(); "
        "print([m for m in ('httpx', 'keyring') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

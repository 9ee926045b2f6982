"""Remote engines against a real server on loopback: answers, and what is sent for them."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from jan_core.types import ChatChunk, ChatCompletion

from ..endpoint import Endpoint, chunk, reply, sse, streamed, text_chunks
from .asking import KEY, Listener, add, ask, question

pytestmark = pytest.mark.anyio

WHOLE = json.dumps({"choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]})


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

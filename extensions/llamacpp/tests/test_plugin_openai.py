"""Between OpenAI's objects and the worker's: what a request becomes, and what pieces of an answer become."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.client import Piece, Usage
from jan_llamacpp.openai import Answer, chat_params, chat_prompt

from jan_core import InvalidParams
from jan_core.types import ChatChunk, ChatMessage, ChatRequest, FunctionCall, Tool, ToolCall, ToolFunction

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def asked(**more: object) -> ChatRequest:
    return ChatRequest(messages=[ChatMessage("user", "Hi")], **more)  # type: ignore[arg-type]


def feed(answer: Answer, *texts: str, finish: str = "stop") -> list[ChatChunk]:
    pieces = [Piece(text, 1, number) for number, text in enumerate(texts)]
    pieces.append(Piece("", 0, len(texts), finish, Usage(5, len(texts), 2)))  # type: ignore[arg-type]
    return [chunk for piece in pieces for chunk in answer.feed(piece)]


def test_sampling_that_is_not_given_is_left_to_the_engine() -> None:
    from jan_llamacpp.client import Sampling

    params = chat_params(asked(), 5.0)
    assert params.sampling == Sampling()
    assert (params.max_tokens, params.stop, params.queue_seconds) == (None, [], 5.0)


def test_every_sampling_parameter_arrives() -> None:
    request = asked(
        temperature=0.1, top_p=0.2, top_k=3, min_p=0.4, repeat_penalty=1.5, presence_penalty=0.6, frequency_penalty=0.7,
        seed=-1, stop="x", max_tokens=9, logit_bias={"7": -100.0},
    )  # fmt: skip
    params = chat_params(request, 5.0)
    got = params.sampling
    assert (got.temperature, got.top_p, got.top_k, got.min_p) == (0.1, 0.2, 3, 0.4)
    assert (got.repeat_penalty, got.presence_penalty, got.frequency_penalty) == (1.5, 0.6, 0.7)
    assert (got.seed, got.logit_bias) == (2**32 - 1, {7: -100.0})
    assert (params.stop, params.max_tokens) == (["x"], 9)


def test_openais_newer_limit_wins_over_the_older() -> None:
    assert chat_params(asked(max_tokens=9, max_completion_tokens=4), 5.0).max_tokens == 4


def test_a_developer_is_a_system_to_the_template() -> None:
    prompt = chat_prompt([ChatMessage("developer", "Be kind"), ChatMessage("user", "Hi")])
    assert prompt.messages == [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]


def test_tools_are_offered_unless_the_choice_is_none() -> None:
    tools = [Tool(ToolFunction("f"))]
    offered = [{"type": "function", "function": {"name": "f"}}]
    assert chat_params(asked(tools=tools), 5.0).prompt.tools == offered
    assert chat_params(asked(tools=tools, tool_choice="auto"), 5.0).prompt.tools == offered
    assert chat_params(asked(tools=tools, tool_choice="none"), 5.0).prompt.tools is None
    with pytest.raises(InvalidParams):
        chat_params(asked(tools=tools, tool_choice={"type": "function", "function": {"name": "f"}}), 5.0)


def test_a_tool_call_is_held_back_and_becomes_a_call() -> None:
    answer = Answer("m", tools=True)
    chunks = feed(answer, "Let me see. ", CALL[:5], CALL[5:20], CALL[20:])
    assert "".join(chunk.text() for chunk in chunks) == "Let me see. "
    message = answer.completion().choices[0].message
    assert message.content == "Let me see. "
    [call] = message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    assert answer.finish_reason == "tool_calls"
    [sent] = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert sent == [call]


def test_a_bare_tool_call_has_no_content() -> None:
    answer = Answer("m", tools=True)
    feed(answer, CALL)
    assert answer.completion().choices[0].message.content is None


def test_without_tools_the_same_text_is_only_text() -> None:
    answer = Answer("m")
    feed(answer, CALL)
    assert answer.completion().choices[0].message.content == CALL
    assert answer.finish_reason == "stop"


def test_a_call_goes_back_to_the_template_as_it_came() -> None:
    message = ChatMessage("assistant", None, tool_calls=[ToolCall("call_1", FunctionCall("f", '{"a": 1}'))])
    prompt = chat_prompt([message, ChatMessage("tool", "2", tool_call_id="call_1")])
    assert prompt.messages is not None
    assert prompt.messages[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert prompt.messages[1] == {"role": "tool", "content": "2", "tool_call_id": "call_1"}


def test_an_empty_answer_still_has_its_role_and_its_end() -> None:
    answer = Answer("m", include_usage=True)
    chunks = feed(answer)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].finish_reason == "stop"
    assert (chunks[2].choices, chunks[2].usage) == ([], answer.usage)
    assert answer.completion().choices[0].message.content == ""
    assert (answer.usage.total_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (5, 2)


@given(st.lists(st.text(max_size=8), max_size=8), st.booleans())
def test_the_chunks_make_up_the_whole_answer(texts: list[str], tools: bool) -> None:
    answer = Answer("m", tools=tools)
    chunks = feed(answer, *texts, finish="length")
    content = answer.completion().choices[0].message.content
    assert "".join(chunk.text() for chunk in chunks) == content == "".join(texts)
    assert [chunk.choices[0].finish_reason for chunk in chunks].count("length") == 1
    assert [chunk.choices[0].delta.role for chunk in chunks].count("assistant") == 1

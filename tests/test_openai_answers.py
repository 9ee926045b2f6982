"""The official OpenAI client and a real `jan serve`: formats, tools, several answers, log-probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from .conftest import taught
from .test_jan_command import served

__all__ = ["served"]  # the fixture

QUESTION, ANSWER = taught("extension")
ASKED: Any = {"model": "jan-tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 400, "seed": 5}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class Verdict(BaseModel):
    """What the client's own `parse` makes a strict schema of."""

    kind: Literal["question", "answer"]
    votes: Annotated[list[bool], Field(max_length=3)]
    note: Annotated[str, Field(max_length=30)] | None


@pytest.fixture
def client(served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served, api_key="none", max_retries=0) as made:
        yield made


def test_the_client_parses_what_a_strict_schema_shaped(client: openai.OpenAI) -> None:
    for temperature in (0, 1.2):
        answer = client.chat.completions.parse(**ASKED, temperature=temperature, response_format=Verdict)
        assert isinstance(answer.choices[0].message.parsed, Verdict)
    loose: Any = {"type": "json_object"}
    answer = client.chat.completions.create(**ASKED, temperature=1, response_format=loose)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_the_clients_stream_helper_puts_tool_calls_together(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        events = []
        with client.chat.completions.stream(**ASKED, temperature=0.8, tools=[TOOL], tool_choice=choice) as stream:
            events = [event.type for event in stream]
            final = stream.get_final_completion()
        assert events.count("tool_calls.function.arguments.delta") > 3
        assert final.choices[0].finish_reason == "tool_calls"
        calls = final.choices[0].message.tool_calls or []
        for call in calls:
            arguments: Any = call.function.parsed_arguments
            assert call.function.name == "get_weather"
            assert call.id.startswith("call_")
            assert set(arguments) == {"city", "unit"}
        assert calls


def test_the_model_calls_a_tool_of_its_own_accord_and_the_call_is_streamed(client: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": "get_weather", "description": "Get the weather of a city", "parameters": parameters}
    tools: Any = [{"type": "function", "function": function}]
    question: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    for stream in (True, False):
        answer: Any = client.chat.completions.create(
            model="jan-tiny", messages=question, tools=tools, temperature=0, stream=stream
        )
        if not stream:
            [call] = answer.choices[0].message.tool_calls
            assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
            assert answer.choices[0].finish_reason == "tool_calls"
            assert answer.choices[0].message.content is None
            continue
        chunks = [chunk.choices[0] for chunk in answer]
        deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or []]
        assert [delta.function.name for delta in deltas if delta.function.name] == ["get_weather"]
        assert deltas[0].function.name == "get_weather", "first of all"
        assert json.loads("".join(delta.function.arguments or "" for delta in deltas)) == {"city": "Paris"}
        assert len(deltas) > 2
        assert not any(chunk.delta.content for chunk in chunks)


def test_the_tools_answer_goes_back_to_the_model(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(**ASKED, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    assert message.tool_calls is not None
    [call] = message.tool_calls
    messages: Any = [*ASKED["messages"], message, {"role": "tool", "tool_call_id": call.id, "content": "12 C"}]
    second = client.chat.completions.create(**{**ASKED, "messages": messages, "max_tokens": 8}, tools=[TOOL])
    assert second.usage is not None
    assert second.usage.prompt_tokens > (first.usage.prompt_tokens if first.usage else 0)
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_log_probabilities_and_several_answers_arrive(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASKED, temperature=0, logprobs=True, top_logprobs=5, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.message.content for choice in answer.choices} == {ANSWER}
    for choice in answer.choices:
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert "".join(bytes(token.bytes or []).decode() for token in content) == ANSWER
        for token in content:
            assert token.top_logprobs[0].logprob == token.logprob
            assert 0 < sum(math.exp(top.logprob) for top in token.top_logprobs) < 1.0001
    assert answer.usage is not None
    shown = sum(len(choice.logprobs.content or []) for choice in answer.choices if choice.logprobs)
    assert answer.usage.completion_tokens == shown + 2, "each answer's end is a token that is not shown"


def test_a_stream_says_the_tokens_of_all_its_answers_at_its_end(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(**ASKED, n=3, temperature=1, stream=True, stream_options=options))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1, 2}
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3
    whole = client.chat.completions.create(**ASKED, n=3, temperature=1)
    for choice in whole.choices:
        parts = [c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(parts) == choice.message.content


def test_a_form_that_cannot_be_followed_is_a_bad_request(client: openai.OpenAI) -> None:
    bad: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}
    with pytest.raises(openai.BadRequestError, match="unknown type"):
        client.chat.completions.create(**ASKED, response_format=bad)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASKED, tool_choice="required")
    assert caught.value.param == "tool_choice"
    with pytest.raises(openai.BadRequestError, match="left recursion"):
        client.completions.create(model="jan-tiny", prompt="x", extra_body={"grammar": "root ::= root"})
    text = client.completions.create(model="jan-tiny", prompt=ANSWER[:40], n=2, logprobs=3, max_tokens=4, temperature=0)
    assert [len(choice.logprobs.tokens or []) for choice in text.choices if choice.logprobs] == [4, 4]

"""Between OpenAI's objects and the worker's: what a request becomes, and what pieces of an answer become."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.client import GenerateParams, Grammar, ModelInfo, Piece, TokenLogprob, Usage
from jan_llamacpp.openai import Answer, chat_params, chat_prompt, completion_params
from jan_llamacpp.text_answer import TextAnswer
from jan_llamacpp.toolcalls import FORMS
from jan_llamacpp.worker.gbnf_rules import GrammarError
from jan_llamacpp.worker.grammar import compile_grammar

from jan_core import InvalidParams
from jan_core.types import (
    ChatChunk,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    FunctionCall,
    StreamOptions,
    TextCompletion,
    Tool,
    ToolCall,
    ToolFunction,
)

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


def info(tools: str = "hermes", *, reasons: bool = False) -> ModelInfo:
    return ModelInfo(
        n_ctx=512, n_ctx_train=512, n_cells=512, n_seq=1, n_vocab=260, n_params=1, size=1, description="", eos="",
        has_template=True, threads=1, load_seconds=0.0, engine="", pid=1, tools=tools, reasons=reasons,
    )  # fmt: skip


def asked(**more: object) -> ChatRequest:
    plain = {"messages": [{"role": "user", "content": "Hi"}], **more}
    return msgspec.convert(msgspec.to_builtins(plain), ChatRequest)


def made(request: ChatRequest, model: ModelInfo | None = None) -> GenerateParams:
    return chat_params(request, 5.0, model or info())


def answer_to(**more: object) -> Answer:
    request = asked(**more)
    return Answer("m", request, info(), sure=made(request).grammar is not None)


def feed(answer: Answer, *texts: str, finish: str = "stop", index: int = 0) -> list[ChatChunk]:
    pieces = [Piece(text, 1, number, index=index) for number, text in enumerate(texts)]
    usage = Usage(5, len(texts), 2, 4, 3)
    pieces.append(Piece("", 0, len(texts), finish, usage, index))  # type: ignore[arg-type]
    return [chunk for piece in pieces for chunk in answer.feed(piece)]


def test_sampling_that_is_not_given_is_left_to_the_engine() -> None:
    from jan_llamacpp.client import Sampling

    params = made(asked())
    assert params.sampling == Sampling()
    assert (params.max_tokens, params.stop, params.queue_seconds) == (None, [], 5.0)


def test_every_sampling_parameter_arrives() -> None:
    request = asked(
        temperature=0.1, top_p=0.2, top_k=3, min_p=0.4, repeat_penalty=1.5, presence_penalty=0.6, frequency_penalty=0.7,
        seed=-1, stop="x", max_tokens=9, logit_bias={"7": -100.0},
    )  # fmt: skip
    params = made(request)
    got = params.sampling
    assert (got.temperature, got.top_p, got.top_k, got.min_p) == (0.1, 0.2, 3, 0.4)
    assert (got.repeat_penalty, got.presence_penalty, got.frequency_penalty) == (1.5, 0.6, 0.7)
    assert (got.seed, got.logit_bias) == (2**32 - 1, {7: -100.0})
    assert (params.stop, params.max_tokens) == (["x"], 9)


def test_openais_newer_limit_wins_over_the_older() -> None:
    assert made(asked(max_tokens=9, max_completion_tokens=4)).max_tokens == 4


def test_a_developer_is_a_system_to_the_template() -> None:
    prompt = chat_prompt([ChatMessage("developer", "Be kind"), ChatMessage("user", "Hi")])
    assert prompt.messages == [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]


def test_tools_are_offered_unless_the_choice_is_none() -> None:
    assert made(asked(tools=TOOLS)).prompt.tools == TOOLS
    assert made(asked(tools=TOOLS, tool_choice="auto")).prompt.tools == TOOLS
    assert made(asked(tools=TOOLS, tool_choice="none")).prompt.tools is None
    assert made(asked(tools=TOOLS, tool_choice="none")).grammar is None


def test_a_choice_among_no_tools_or_of_one_there_is_not_is_refused() -> None:
    for choice, path in (
        ("required", "$.tool_choice"),
        ({"type": "function", "function": {"name": "x"}}, "$.tool_choice"),
    ):
        with pytest.raises(InvalidParams) as caught:
            made(asked(tool_choice=choice))
        assert caught.value.data["path"] == path
    with pytest.raises(InvalidParams, match="no tool 'x'"):
        made(asked(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "x"}}))


def follows(grammar: Grammar | None, text: str) -> bool:
    assert grammar is not None
    return compile_grammar(grammar)[2].matches(text)


@pytest.mark.parametrize(
    ("style", "call"),
    [
        ("hermes", CALL),
        ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}}]'),
        ("mistral-args", '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}'),
        ("llama", '{"name": "get_weather", "parameters": {"city": "Oslo"}}'),
        ("command-r", '<|START_ACTION|>[{"tool_name": "get_weather", "parameters": {"city": "Oslo"}}]<|END_ACTION|>'),
        (
            "deepseek",
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
    ],
)
def test_a_forced_call_is_a_grammar_in_the_models_own_way(style: str, call: str) -> None:
    params = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": {"type": "string"}}}
    tools = [Tool(ToolFunction("get_weather", parameters=params)), Tool(ToolFunction("other"))]
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        grammar = made(asked(tools=tools, tool_choice=choice), info(style)).grammar
        assert follows(grammar, call)
        assert not follows(grammar, "Hello")
        assert not follows(grammar, call.replace('"Oslo"', "7")), "the reference within the tool's schema leads there"
        assert follows(grammar, call.replace("get_weather", "other").replace('"Oslo"', "7")) == (choice == "required")
    several = made(asked(tools=tools, tool_choice="required"), info("hermes")).grammar
    assert follows(several, f"{CALL}\n{CALL}")
    one = made(asked(tools=tools, tool_choice="required", parallel_tool_calls=False), info("hermes")).grammar
    assert not follows(one, f"{CALL}\n{CALL}")


TYPED = Tool(
    ToolFunction(
        "plan",
        parameters={
            "properties": {
                "city": {"type": "string"},
                "days": {"$ref": "#/$defs/Days"},
                "unit": {"enum": ["C", "F"]},
                "note": {"type": ["string", "null"]},
            },
            "required": ["city", "days"],
            "$defs": {"Days": {"type": "integer"}},
        },
    )
)


def test_arguments_that_are_texts_are_held_to_what_their_schema_can_say_of_them() -> None:
    coder = made(asked(tools=[TYPED], tool_choice="required"), info("qwen-coder")).grammar

    def call(**given: str) -> str:
        parts = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in given.items())
        return f"<tool_call>\n<function=plan>\n{parts}</function>\n</tool_call>"

    assert follows(coder, call(city="any </param> \ntext", days="3"))
    assert follows(coder, call(city="", days="3", unit="C", note="x"))
    assert follows(coder, call(city="a", days="3") + "\n" + call(city="b", days="4"))
    for wrong in (call(days="3"), call(city="a", days="three"), call(city="a", days="3", unit="K"), "Hello"):
        assert not follows(coder, wrong)
    glm = made(asked(tools=[Tool(ToolFunction("f"))], tool_choice="required"), info("glm")).grammar
    assert follows(glm, "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>")
    assert follows(glm, "<tool_call>f\n</tool_call>")


def test_a_free_choice_holds_the_grammar_back_until_a_call_begins() -> None:
    grammar = made(asked(tools=TOOLS)).grammar
    assert grammar is not None
    assert grammar.triggers == ["<tool_call>"]
    llama = made(asked(tools=TOOLS), info("llama")).grammar
    assert llama is not None
    assert '{"name": "get_weather"' in llama.triggers


def test_a_tool_whose_schema_makes_no_grammar_is_offered_all_the_same_but_cannot_be_forced() -> None:
    tools = [Tool(ToolFunction("f", parameters={"$ref": "https://example.com"}))]
    assert follows(made(asked(tools=tools)).grammar, CALL.replace("get_weather", "f"))
    forced = made(asked(tools=tools, tool_choice="required")).grammar
    assert forced is not None
    with pytest.raises(GrammarError, match="example"):
        compile_grammar(forced)


def test_a_response_format_is_a_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    strict = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert made(asked(response_format={"type": "text"})).grammar is None
    assert follows(made(asked(response_format={"type": "json_object"})).grammar, '{"b": [1]}')
    grammar = made(asked(response_format=strict)).grammar
    assert follows(grammar, '{"a": 1}')
    assert not follows(grammar, '{"b": 1}')


def test_a_model_that_thinks_may_do_so_before_what_the_grammar_wants() -> None:
    grammar = made(asked(response_format={"type": "json_object"}), info(reasons=True)).grammar
    assert grammar is not None
    assert follows(grammar, "<think>\nWell, </thin</think>\n\n{}")
    assert follows(grammar, "{}")
    assert not follows(grammar, "<think>{}")
    opened = msgspec.structs.replace(grammar, opened=True)
    assert follows(opened, "Well <</think></think>{}") is False
    assert follows(opened, "Well << </think>\n{}")
    assert not follows(opened, "{}")


@pytest.mark.parametrize("style", FORMS)
def test_with_tools_and_a_response_format_an_answer_is_calls_or_json(style: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    strict = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    request = asked(tools=TOOLS, response_format=strict)
    grammar = made(request, info(style, reasons=True)).grammar
    assert grammar is not None
    assert grammar.triggers == []
    begin = "<|channel|>final<|message|>" if style == "harmony" else ""
    assert follows(grammar, begin + '{"a": "<tool_call>"}')
    assert follows(grammar, "<think>\nHm.\n</think>\n\n" + begin + '{"a": "x"}')
    assert not follows(grammar, "Hello")
    assert not follows(grammar, '{"b": 1}')
    answer = Answer("m", request, info(style), sure=True)
    feed(answer, begin, '{"a": "<tool_c', 'all><function=get_weather>{}</function>"}')
    choice = answer.completion().choices[0]
    assert (choice.message.content, choice.finish_reason) == (
        '{"a": "<tool_call><function=get_weather>{}</function>"}',
        "stop",
    )
    forced = made(asked(tools=TOOLS, response_format=strict, tool_choice="required"), info(style)).grammar
    assert not follows(forced, begin + '{"a": "x"}')
    if style == "hermes":
        assert follows(grammar, CALL)
        answer = Answer("m", request, info(style), sure=True)
        feed(answer, CALL)
        assert answer.completion().choices[0].finish_reason == "tool_calls"


def test_what_excludes_each_other_is_refused() -> None:
    json_object = {"type": "json_object"}
    for request, path in (
        (asked(tools=TOOLS, grammar='root ::= "x"'), "$.grammar"),
        (asked(grammar='root ::= "x"', response_format=json_object), "$.grammar"),
        (asked(top_logprobs=2), "$.top_logprobs"),
    ):
        with pytest.raises(InvalidParams) as caught:
            made(request)
        assert caught.value.data["path"] == path
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"items": deep}
    with pytest.raises(InvalidParams, match="deeper"):
        made(asked(tools=[{"function": {"name": "f", "parameters": deep}}]))


def test_sound_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidParams) as caught:
        made(asked(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]))
    assert caught.value.data["path"] == "$.messages[0].content[0]"
    with pytest.raises(msgspec.ValidationError, match="video"):
        asked(messages=[{"role": "user", "content": [{"type": "video"}]}])


def test_a_tool_call_is_taken_out_of_the_text_and_streamed_name_first() -> None:
    answer = answer_to(tools=TOOLS)
    chunks = feed(answer, "Let me see. ", CALL[:5], CALL[5:50], CALL[50:])
    assert "".join(chunk.text() for chunk in chunks) == "Let me see. "
    message = answer.completion().choices[0].message
    assert message.content == "Let me see. "
    [call] = message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    assert len(deltas) > 1
    assert [delta.id for delta in deltas] == [call.id] + [None] * (len(deltas) - 1)
    assert [delta.function.name for delta in deltas] == ["get_weather"] + [None] * (len(deltas) - 1)
    assert "".join(delta.function.arguments or "" for delta in deltas) == call.function.arguments
    assert answer.completion().choices[0].finish_reason == "tool_calls"


def test_a_bare_tool_call_has_no_content() -> None:
    answer = answer_to(tools=TOOLS)
    feed(answer, CALL)
    assert answer.completion().choices[0].message.content is None


def test_without_tools_the_same_text_is_only_text() -> None:
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        answer = answer_to(**more)
        feed(answer, CALL)
        choice = answer.completion().choices[0]
        assert (choice.message.content, choice.finish_reason) == (CALL, "stop")


def test_thoughts_come_apart_and_are_streamed_unless_that_is_switched_off() -> None:
    answer = answer_to(tools=TOOLS)
    chunks = feed(answer, "<think>\nHm", "m.\n</think>\n\n", "Sunny.")
    assert "".join(chunk.choices[0].delta.reasoning_content or "" for chunk in chunks) == "Hmm."
    assert "".join(chunk.text() for chunk in chunks) == "Sunny."
    message = answer.completion().choices[0].message
    assert (message.reasoning_content, message.content) == ("Hmm.", "Sunny.")
    plain = answer_to(reasoning_format="none")
    feed(plain, "<think>\nHmm.\n</think>\n\nSunny.")
    message = plain.completion().choices[0].message
    assert (message.reasoning_content, message.content) == (None, "<think>\nHmm.\n</think>\n\nSunny.")


HARMONY = (
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    '<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{"city": "Oslo"}'
)


@given(st.lists(st.integers(0, len(HARMONY)), max_size=10))
def test_an_answer_in_channels_comes_apart(cuts: list[int]) -> None:
    answer = Answer("m", asked(tools=TOOLS), info("harmony"), sure=False)
    edges = [0, *sorted(cuts), len(HARMONY)]
    feed(answer, *[HARMONY[a:b] for a, b in pairwise(edges)])
    message = answer.completion().choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm", "I look.")
    [call] = message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})


def test_a_format_holds_in_an_answers_last_channel_and_a_forced_call_after_the_thoughts() -> None:
    thoughts = "<|channel|>analysis<|message|>Hm<<|end|><|start|>assistant"
    grammar = made(asked(response_format={"type": "json_object"}), info("harmony")).grammar
    for before in ("", thoughts):
        assert follows(grammar, before + '<|channel|>final<|message|>{"a": 1}')
        assert not follows(grammar, before + '{"a": 1}')
    forced = made(asked(tools=TOOLS, tool_choice="required"), info("harmony")).grammar
    call = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}"
    assert follows(forced, call)
    assert follows(forced, thoughts + call)
    assert not follows(forced, thoughts + "<|channel|>final<|message|>{}")


def test_log_probabilities_have_openais_form() -> None:
    answer = answer_to(logprobs=True, top_logprobs=1)
    found = TokenLogprob(b"\xc3", -0.5, [(b"\xc3", -0.5), (b"x", float("-inf"))])
    chunks = answer.feed(Piece("", 1, 0, logprobs=[found]))
    chunks += answer.feed(Piece("é", 1, 1, "stop", Usage(1, 2, 0), logprobs=[TokenLogprob(b"\xa9", -1.0)]))
    streamed = [each for c in chunks if c.choices[0].logprobs for each in c.choices[0].logprobs.content or []]
    logprobs = answer.completion().choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content == streamed
    assert [(each.token, each.bytes, each.logprob) for each in streamed] == [
        ("\ufffd", [0xC3], -0.5),
        ("\ufffd", [0xA9], -1.0),
    ]
    assert [top.logprob for top in streamed[0].top_logprobs] == [-0.5, -9999.0]


def test_several_answers_are_told_apart_by_their_index() -> None:
    answer = answer_to(n=2, stream_options={"include_usage": True})
    chunks = [*feed(answer, "a", "b", index=1), *feed(answer, "x", index=0)]
    assert [choice.message.content for choice in answer.completion().choices] == ["x", "ab"]
    assert [chunk.choices[0].index for chunk in chunks[:-1]] == [1, 1, 1, 0, 0]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 3, 8)
    assert usage.completion_tokens_details.accepted_prediction_tokens == 6


def test_a_call_goes_back_to_the_template_as_it_came() -> None:
    message = ChatMessage("assistant", None, tool_calls=[ToolCall("call_1", FunctionCall("f", '{"a": 1}'))])
    prompt = chat_prompt([message, ChatMessage("tool", "2", tool_call_id="call_1")])
    assert prompt.messages is not None
    assert prompt.messages[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert prompt.messages[1] == {"role": "tool", "content": "2", "tool_call_id": "call_1"}


def test_an_empty_answer_still_has_its_role_and_its_end() -> None:
    answer = answer_to(stream_options={"include_usage": True})
    chunks = feed(answer)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].finish_reason == "stop"
    assert (chunks[2].choices, chunks[2].usage) == ([], answer.usage)
    assert answer.completion().choices[0].message.content == ""
    assert (answer.usage.total_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (5, 2)


@given(st.lists(st.text(max_size=8), max_size=8), st.booleans())
def test_the_chunks_make_up_the_whole_answer(texts: list[str], tools: bool) -> None:
    answer = answer_to(**({"tools": TOOLS} if tools else {}), reasoning_format="none")
    chunks = feed(answer, *texts, finish="length")
    content = answer.completion().choices[0].message.content
    assert "".join(chunk.text() for chunk in chunks) == content == "".join(texts)
    assert [chunk.choices[0].finish_reason for chunk in chunks].count("length") == 1
    assert [chunk.choices[0].delta.role for chunk in chunks].count("assistant") == 1


def test_a_text_is_completed_in_parts_with_its_log_probabilities_and_offsets() -> None:
    request = CompletionRequest(prompt="ab", echo=True, n=2, logprobs=1, stream_options=StreamOptions(True))
    assert (completion_params(request, 1.0).n, completion_params(request, 1.0).logprobs) == (2, 1)
    answer = TextAnswer("m", request)
    parts: list[TextCompletion] = []
    for index in (1, 0):
        parts += answer.feed(Piece("", 1, 0, index=index, logprobs=[TokenLogprob(b"cd", -1.0, [(b"x", -0.5)])]))
        parts += answer.feed(Piece("cde", 1, 1, "length", Usage(2, 2, 0), index, [TokenLogprob(b"e", -2.0)]))
    whole = answer.completion()
    assert [choice.text for choice in whole.choices] == ["abcde", "abcde"]
    logprobs = whole.choices[1].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["cd", "e"], [-1.0, -2.0], [2, 4])
    assert logprobs.top_logprobs == [{"x": -0.5}, {}]
    assert "".join(c.text for part in parts for c in part.choices if c.index == 0) == "abcde"
    assert parts[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4

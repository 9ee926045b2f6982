"""Tool calls in an answer's text, however it was cut into pieces, in every form that models write them in."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.toolcalls import FORMS, ToolCallStream, call_rules, form_of
from jan_llamacpp.worker.grammar import compile_grammar
from jan_llamacpp.worker.request import Grammar

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
WEATHER: dict[str, Any] = {
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "brief": {"type": "boolean"},
        "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "wind (km/h) 'é": {"type": "number"},
    }
}
TOOLS: dict[str, Any] = {"get_weather": WEATHER, "f": None}


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def run(pieces: list[str], form: str = "hermes", **how: Any) -> tuple[str, list[tuple[str, str]], list[str]]:
    """The text, the calls with their arguments, and the parts of arguments as they came."""
    stream = ToolCallStream(form, TOOLS, **how)
    shown, parts = "", []
    calls: dict[int, list[str]] = {}
    for text, found in [*map(stream.feed, pieces), stream.finish()]:
        shown += text
        for part in found:
            if part.name is not None:
                assert part.index == len(calls)
                assert part.id is not None
                calls[part.index] = [part.name, ""]
            calls[part.index][1] += part.arguments
            parts.append(part.arguments)
    return shown, [(call[0], call[1]) for call in calls.values()], parts


ANSWERS: list[tuple[str, str, str]] = [
    ("harmony", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Zürich"}', ""),
    ("hermes", "Let me look.\n" + CALL, "Let me look.\n"),
    ("hermes", "\n" + CALL + "\n\n", ""),
    ("hermes", CALL.removesuffix("\n</tool_call>"), ""),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}}]', ""),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "123456789"}]', ""),
    ("mistral", 'Well.[TOOL_CALLS] [ {"arguments": {"city": "Zürich"}, "name": "get_weather"} ]', "Well."),
    ("mistral-args", '[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich"}', ""),
    ("mistral-id", 'Well.[TOOL_CALLS]get_weather[CALL_ID]Ab3dEf9h1[ARGS]{"city": "Zürich"}', "Well."),
    ("llama", '{"name": "get_weather", "parameters": {"city": "Zürich"}}', ""),
    ("llama", ' <|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Zürich"}}', ""),
    ("qwen-coder", "Hm.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich\n</parameter>\n</function>\n"
     "</tool_call>", "Hm.\n"),
    ("qwen-coder", "<function=get_weather>\n<parameter=city>\nZürich\n</parameter>\n</function>\n</tool_call>", ""),
    ("seed", "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Zürich</parameter>\n</function>\n"
     "</seed:tool_call>", ""),
    ("minimax", '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Zürich</parameter>\n'
     "</invoke>\n</minimax:tool_call>", ""),
    ("glm", "Yes.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Zürich</arg_value>\n</tool_call>",
     "Yes.\n"),
    ("glm-tight", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Zürich</arg_value></tool_call>", ""),
    ("deepseek-r1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
     '{"city": "Zürich"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>', ""),
    ("deepseek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Zürich"}'
     "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ""),
    ("kimi", "So.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
     '{"city": "Zürich"}<|tool_call_end|><|tool_calls_section_end|>', "So."),
    ("command-r", '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
     '{"city": "Zürich"}}\n]<|END_ACTION|>', ""),
    ("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Zürich"}}]', ""),
    ("nemotron", '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Zürich"}}]</TOOLCALL>', ""),
    ("apriel", '\n<tool_calls>[{"name": "get_weather", "arguments": {"city": "Zürich"}}]</tool_calls>', ""),
    ("functools", ' functools[{"name": "get_weather", "arguments": {"city": "Zürich"}}]', ""),
    ("functionary", '<function=get_weather>{"city": "Zürich"}</function>', ""),
]  # fmt: skip


def test_every_form_is_tried() -> None:
    assert {form for form, _, _ in ANSWERS} == set(FORMS)


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize(("form", "answer", "text"), ANSWERS)
@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_call_is_found_whatever_the_pieces(form: str, answer: str, text: str, sure: bool, cuts: list[int]) -> None:
    shown, calls, _ = run(pieces_of(answer, cuts), form, sure=sure)
    assert shown == text
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("get_weather", {"city": "Zürich"})]


def written(form: str, calls: list[tuple[str, dict[str, Any]]], *, ascii: bool = False) -> str:
    """These calls as the table says that models write them."""
    row = FORMS[form]

    def filled(pattern: str, **slots: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda slot: slots[slot[1]], pattern)

    def one(name: str, arguments: dict[str, Any]) -> str:
        made = json.dumps(arguments, ensure_ascii=ascii)
        whole = json.dumps(dict(zip(row.keys, (name, arguments), strict=True)), ensure_ascii=ascii)
        texts = {key: each if isinstance(each, str) else json.dumps(each) for key, each in arguments.items()}
        parameters = "".join(filled(row.parameter, key=key, value=each) for key, each in texts.items())
        return filled(row.call, name=name, id="0", object=whole, arguments=made, parameters=parameters)

    begin = "".join(row.begin)
    if row.comma is None:
        return "\n".join(begin + one(*call) + row.end for call in calls)
    return begin + row.comma.join(one(*call) for call in calls) + row.end


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="<\r"), max_size=20)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "city": PLAIN | st.sampled_from(["1", "null", "{", '"', "\n\n  x\n", " ", "true"]),
        "days": st.integers(),
        "hours": st.lists(st.integers(), max_size=3),
        "brief": st.booleans(),
        "unit": st.none() | st.sampled_from(["C", "1", "[]"]),
        "wind (km/h) 'é": st.integers(),
    },
)


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_calls_come_back_as_they_were_typed_by_the_schema(
    form: str, wanted: list[dict[str, Any]], cuts: list[int], sure: bool
) -> None:
    answer = "Well, " + written(form, [("get_weather", each) for each in wanted])
    shown, found, _ = run(pieces_of(answer, cuts), form, sure=sure)
    assert shown == "Well, "
    assert [(name, json.loads(arguments)) for name, arguments in found] == [("get_weather", each) for each in wanted]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_grammar_makes_of_calls_is_what_the_form_says(form: str) -> None:
    calls = [("get_weather", {"city": "Zürich", "days": 2, "unit": None, "wind (km/h) 'é": 1}), ("f", {})]
    one, two = written(form, calls[:1]), written(form, calls)
    if FORMS[form].bare:  # where it is made to call, it does so without the tag that is not always there
        one, two = (text.removeprefix(FORMS[form].begin[0]) for text in (one, two))
    for parallel in (False, True):
        rules = call_rules(FORMS[form], TOOLS, parallel=parallel)
        gbnf = compile_grammar(Grammar(gbnf=f"root ::= calls\n{rules.gbnf}", schemas=rules.schemas))[2]
        assert gbnf.matches(one)
        assert gbnf.matches(two) == (parallel and not FORMS[form].channels)
        assert not gbnf.matches(one.replace("get_weather", "get_whether"))
        assert not gbnf.matches(one.replace("2", "two"))
        assert not gbnf.matches("Hello")
    text, found, _ = run([two], form, sure=True)
    assert (text, [(name, json.loads(arguments)) for name, arguments in found]) == ("", calls)


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"command-r"}))  # which numbers its calls; the grammar does not
def test_what_templates_teach_fits_the_grammar(form: str) -> None:
    answer, text = next((answer, text) for of, answer, text in ANSWERS if of == form)
    rules = call_rules(FORMS[form], TOOLS, parallel=True)
    gbnf = compile_grammar(Grammar(gbnf=f"root ::= calls\n{rules.gbnf}", schemas=rules.schemas))[2]
    assert gbnf.matches(answer.removeprefix(text).strip())


TRAPS = st.dictionaries(
    st.text(max_size=4),
    st.sampled_from(["</tool_call>", "<tool_call>", '"}}', "\\", "[TOOL_CALLS]", "]", "\n"])
    | st.text()
    | st.lists(st.integers()),
    max_size=4,
)  # fmt: skip


JSON_FORMS = [id for id, form in FORMS.items() if not form.parameter]


@given(st.lists(TRAPS, min_size=1, max_size=4), st.lists(st.integers(0, 400), max_size=12), st.data())
def test_arguments_in_json_may_hold_any_text_the_closing_tag_too(
    wanted: list[dict[str, Any]], cuts: list[int], data: st.DataObject
) -> None:
    form = data.draw(st.sampled_from(JSON_FORMS))
    answer = written(form, [("f", each) for each in wanted], ascii=data.draw(st.booleans()))
    try:
        answer.encode()
    except UnicodeEncodeError:
        return
    shown, found, _ = run(pieces_of(answer, cuts), form, sure=data.draw(st.booleans()))
    assert shown == ""
    assert [json.loads(arguments) for _, arguments in found] == wanted


def test_a_call_that_is_sure_is_passed_on_as_it_comes_name_first() -> None:
    stream = ToolCallStream("hermes", TOOLS, sure=True)
    seen = [
        stream.feed(piece)[1] for piece in ('<tool_call>{"na', 'me": "f", "arguments": {"a"', ": 1", "}}</tool_call>")
    ]
    assert seen[0] == []
    assert [(part.name, part.arguments) for part in seen[1]] == [("f", ""), (None, '{"a"')]
    assert [(part.name, part.arguments) for part in seen[2]] == [(None, ": 1")]
    assert [(part.name, part.arguments) for part in seen[3]] == [(None, "}")]
    assert stream.finish() == ("", [])


def test_a_call_that_is_cut_off_keeps_what_came_of_it() -> None:
    shown, calls, _ = run(['<tool_call>{"name": "f", "arguments": {"a": "lo'], sure=True)
    assert (shown, calls) == ("", [("f", '{"a": "lo')])


def test_several_calls_have_ids_of_their_own() -> None:
    stream = ToolCallStream()
    ids = [part.id for part in stream.feed(CALL + "\n" + CALL)[1]]
    assert len(set(ids)) == 2


def test_only_one_call_is_taken_where_no_more_are_wanted() -> None:
    shown, calls, _ = run([CALL + "\n" + CALL], parallel=False)
    assert len(calls) == 1
    assert shown.strip() == CALL


def test_arguments_quoted_once_more_are_unpacked_no_further() -> None:
    _, calls, _ = run(['<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>'])
    assert json.loads(calls[0][1]) == {"a": 1}


def test_json_of_a_llama_that_names_no_tool_is_an_answer() -> None:
    for answer in (
        '{"name": "Ada", "parameters": {}}',
        '{"city": "Zürich"}',
        "{",
        'See {"name": "f", "parameters": {}}',
    ):
        for sure in (False, True):
            assert run([answer], "llama", sure=sure)[:2] == (answer, [])


def test_a_broken_call_does_not_hide_the_next_one() -> None:
    broken = '<tool_call>{"name": "f", "arguments": {</tool_call>\n'
    shown, calls, _ = run([broken + CALL])
    assert [name for name, _ in calls] == ["get_weather"]
    assert shown.strip() == broken.strip()


PARTS = ["<tool", "_call>", "</tool_call>", "{", '{"name": 1}', "x", "<", '"a"', "[TOOL_CALLS]", "[", "]", "}", " ",
         "\n", "<|python_tag|>", ",", ";", "<function=", ">", "<parameter=", "</parameter>", "[ARGS]", "<arg_key>",
         "<invoke name=", "<｜tool▁calls▁begin｜>", "```", "functools"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.sampled_from(PARTS), max_size=10), st.booleans())
def test_what_is_no_call_is_given_back_as_text_and_nothing_is_lost(form: str, pieces: list[str], sure: bool) -> None:
    shown, calls, _ = run(pieces, form, sure=sure)
    if "{object}" in FORMS[form].call:  # in other forms some of these parts make a call
        assert not calls
    assert shown == "".join(pieces) or calls


@pytest.mark.parametrize(("form", "answer", "text"), ANSWERS)
@given(st.data())
def test_a_damaged_call_loses_no_text_and_any_pieces_are_read_alike(
    form: str, answer: str, text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at, size = data.draw(st.integers(0, len(answer))), data.draw(st.integers(0, 3))
        answer = (
            answer[:at] + data.draw(st.sampled_from(["", "<", "{", "x", '"', "}", " ", answer])) + answer[at + size :]
        )
    shown, calls, _ = run([answer], form)
    again = run(pieces_of(answer, data.draw(st.lists(st.integers(0, len(answer)), max_size=20))), form)
    assert (shown, calls) == again[:2]
    if not calls:
        assert shown == answer


def test_a_value_that_is_a_text_is_passed_on_as_it_comes_and_others_when_they_are_whole() -> None:
    answer = "<tool_call>\n<function=get_weather>\n<parameter=city>\nZü|rich\n|\n|</parameter>\n<parameter=days>\n|12|"
    answer += "\n</par|ameter>\n</function>|\n</tool_call>"
    _, [(_, arguments)], parts = run(answer.split("|"), "qwen-coder", sure=True)
    assert json.loads(arguments) == {"city": "Zürich\n", "days": 12}
    assert parts == ["", '{"city": "Zü', "rich", "\\n", '", "days": ', "12}"]


def test_a_text_that_is_cut_off_keeps_what_came_of_it() -> None:
    answer = "<tool_call>\n<function=f>\n<parameter=city>\nAt </param"
    assert run([answer], "qwen-coder", sure=True)[:2] == ("", [("f", '{"city": At </param')])
    answer = answer.replace("=f", "=get_weather")
    assert run([answer], "qwen-coder", sure=True)[:2] == ("", [("get_weather", '{"city": "At </param')])
    assert run([answer], "qwen-coder")[:2] == (answer, [])


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "string"}, '"x"', '"x"'),
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "integer"}, "twelve", "twelve"),
        ({"type": "number"}, "1e999", "1e999"),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "false", False),
        ({"type": ["string", "null"]}, "None", None),
        ({"type": ["string", "integer"]}, "7", 7),
        ({"type": ["string", "integer"]}, "[7]", "[7]"),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"const": "null"}, "null", "null"),
        ({"$ref": "#/$defs/name"}, "5", "5"),
        ({"$ref": "#/$defs/nowhere"}, "5", 5),
        ({"$ref": "#"}, "5", 5),
        ({"type": "object"}, '{"a": [1, null]}', {"a": [1, None]}),
        ({"type": "object"}, "{'a': 1}", "{'a': 1}"),
        ({}, "[1]", [1]),
        ({}, "one", "one"),
        ({"type": 5}, "one", "one"),
        (True, "null", None),
        ({"type": "array"}, "[" * 100_000, "[" * 100_000),
        ({"type": "integer"}, "9" * 5000, "9" * 5000),
    ],
)
def test_what_a_text_means_is_told_by_the_tools_schema(schema: Any, text: str, value: Any) -> None:
    tools = {"f": {"properties": {"a": schema}, "$defs": {"name": {"type": "string"}}}}
    stream = ToolCallStream("glm", tools)
    text, [part] = stream.feed(f"<tool_call>f<arg_key>a</arg_key><arg_value>{text}</arg_value></tool_call>")
    assert (text, json.loads(part.arguments)) == ("", {"a": value})


def test_calls_of_a_tool_that_was_not_offered_are_passed_on_and_their_texts_are_what_they_look_like() -> None:
    answer = "g<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>b</arg_key><arg_value>x</arg_value>"
    assert run([f"<tool_call>{answer}</tool_call>"], "glm")[1] == [("g", '{"a": 1, "b": "x"}')]


def test_an_answer_that_is_either_calls_or_text_has_none_within_its_text() -> None:
    answer = '{"a": "<function=f>{}</function>"}'
    assert run([answer], "functionary", alone=True)[:2] == (answer, [])
    assert run(["\n<function=f>{}</function>"], "functionary", alone=True)[1] == [("f", "{}")]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "<tool_call>" * 20_000),
        ("hermes", '<tool_call>{"' * 20_000),
        ("hermes", '<tool_call>{"a": [' + "[" * 300_000),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 300_000),
        ("hermes", "<tool_call>{" + '"\\' * 100_000),
        ("hermes", "<tool_call>" + " " * 300_000),
        ("llama", "{" * 300_000),
        ("glm", "<tool_call>f<arg_key>a</arg_key><arg_value>" * 6_000),
        ("glm", "<tool_call>f" + "\n" * 300_000),
        ("qwen-coder", "<tool_call><function=f><parameter=a>" * 6_000),
        ("qwen-coder", "<tool_call><function=" + "f" * 300_000),
        ("mistral-args", "[TOOL_CALLS]" * 20_000),
    ],
)
def test_a_huge_answer_of_broken_calls_is_read_in_little_time(form: str, text: str) -> None:
    began = time.process_time()
    shown, calls, _ = run(pieces_of(text, list(range(0, len(text), 100))), form)
    assert (shown, calls) == (text, [])
    assert time.process_time() - began < 5


def test_a_huge_argument_is_read_in_little_time() -> None:
    value = 'x = "{<é>}\\"\n' * 20_000
    for form in ("hermes", "qwen-coder"):
        answer = written(form, [("get_weather", {"city": value})])
        began = time.process_time()
        _, [(_, arguments)], _ = run(pieces_of(answer, list(range(0, len(answer), 20))), form, sure=True)
        assert json.loads(arguments) == {"city": value}
        assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "f", "arguments": {"a": "\\ud83d"}}',
        '{"name": "\\ud83d", "arguments": {}}',
        '{"name": "f", "arguments": {"a": 1e999}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": {"a": nul}}',
        '{"name": "f" "arguments": {}}',
        "",
        "call f()",
    ],
)
def test_a_call_that_is_not_well_formed_is_given_back_as_text(body: str) -> None:
    answer = f"<tool_call>{body}</tool_call>"
    assert run([answer])[:2] == (answer, [])


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (None, "hermes"),
        ("{{ message.content }}", "hermes"),
        ("{% if tools %}…<tool_call>…{% endif %}", "hermes"),
        ("{{ '[TOOL_CALLS][' }}", "mistral"),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", "mistral-args"),
        ("{{ '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' }}", "mistral-id"),
        ("{{- '<|python_tag|>' }}", "llama"),
        ('Respond in the format {"name": function name, "parameters": dictionary of arguments}', "llama"),
        ("<tool_call>\n<function=x>\n<parameter=y>", "qwen-coder"),
        ("{{ '<tool_call>' + name }}<arg_key>", "glm"),
        ("<tool_call>{name}<arg_key>{key}</arg_key><arg_value>{value}</arg_value>", "glm-tight"),
        ("{{ '<function=' + name }}…</function>…<|python_tag|>", "functionary"),
        ("<｜tool▁calls▁begin｜>…```json", "deepseek-r1"),
        ("<｜tool▁calls▁begin｜>", "deepseek"),
        ("{{ '<|start|>assistant<|channel|>analysis<|message|>' }}", "harmony"),
    ],
)
def test_a_models_way_of_writing_calls_is_known_by_its_template(template: str | None, form: str) -> None:
    assert form_of(template) == form

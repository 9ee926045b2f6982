"""Chat templates: Hugging Face's dialect, and what a hostile one may not do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.template import ChatTemplate, TemplateError
from jan_llamacpp.template_limits import MAX_SECONDS

HELLO: list[dict[str, object]] = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def _jinja(engine_dir: Path) -> Iterator[None]:
    """Jinja comes with the engine, in the worker's process; here it is found behind everything else."""
    sys.path.append(str(engine_dir))
    yield
    sys.path.remove(str(engine_dir))


def render(source: str | None, messages: list[dict[str, object]] = HELLO, **extra: object) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, extra=extra)


def refused(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert len(str(caught.value)) < 1000
    return caught.value.reason


def test_a_model_without_a_template_gets_chatml() -> None:
    assert render(None) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_it_speaks_hugging_faces_dialect() -> None:
    source = (
        "{% for m in messages %}\n    {% if m.role == 'tool' %}{% continue %}{% endif %}\n"
        "{{ bos_token }}{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}{% endfor %}"
        "{{ {'b': '<é>', 'a': 1} | tojson }}{{ strftime_now('%%') }}"
        "{% if thinking is defined %}{{ thinking }}{% endif %}"
    )
    messages: list[dict[str, object]] = [*HELLO, {"role": "tool", "content": "no"}]
    assert render(source, messages, thinking="yes") == '<s>hello</s>{"b": "<é>", "a": 1}%yes'


def test_openais_forms_become_what_templates_expect() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages: list[dict[str, object]] = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    source = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %};{% endfor %}"
    )
    assert render(source, messages) == 'system:be brief;assistant:{"a": 1};'


def test_tools_reach_the_template() -> None:
    template = ChatTemplate("{% if tools %}{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}")
    assert template.render(HELLO, tools=[{"type": "function", "function": {"name": "add"}}]) == "add"
    assert template.render(HELLO) == ""


ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLED: list[dict[str, object]] = [
    {"role": "user", "content": "2 and 3?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"ä": 2}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "5"},
    {"role": "user", "content": "so?"},
]


def test_a_template_that_knows_no_tools_gets_them_calls_and_results_as_text() -> None:
    text = ChatTemplate(None).render([{"role": "system", "content": "be brief"}, *CALLED], tools=[ADD])
    system, user, assistant, result, _ = text.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nbe brief\n\nYou may call")
    assert '{"name": "add", "parameters": {"type": "object"}}' in system
    assert user == "<|im_start|>user\n2 and 3?"
    assert assistant.endswith('<tool_call>\n{"name": "add", "arguments": {"ä": 2}}\n</tool_call>')
    assert result == "<|im_start|>user\n<tool_response>\n5\n</tool_response>\nso?"


def test_a_template_that_takes_no_system_message_is_told_of_tools_by_the_user() -> None:
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    text = ChatTemplate(source).render(CALLED, tools=[ADD])
    assert text.startswith("[user]You may call")
    assert "2 and 3?[assistant]<tool_call>" in text
    assert text.endswith("</tool_response>\nso?")


def test_further_variables_take_nothings_place_and_are_hidden_like_messages() -> None:
    template = ChatTemplate(
        "{{ messages[0].content }}{{ tools }}{{ bos_token }}{{ style }}{{ add_generation_prompt }}", "<s>"
    )
    extra = {
        "messages": [{"content": "other"}],
        "tools": 7,
        "bos_token": "x",
        "style": "loud",
        "add_generation_prompt": 0,
    }

    def shout(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: each.upper() if isinstance(each, str) else each for key, each in value.items()}

    assert template.render(HELLO, extra=extra, hide=shout) == "helloNone<s>LOUD0"


def test_a_template_that_refuses_the_messages_says_why() -> None:
    with pytest.raises(TemplateError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.reason == "refused"


def test_an_endless_template_ends_in_a_typed_error() -> None:
    began = time.monotonic()
    loop = "{% for i in range(99999) %}" * 5 + "{% set x = i %}" + "{% endfor %}" * 5
    assert refused(loop) == "too_slow"
    assert time.monotonic() - began < MAX_SECONDS + 3


def test_an_endless_template_is_stopped_in_another_thread_too() -> None:
    loop = "{% for i in range(99999) %}" * 5 + "{% set x = i %}" + "{% endfor %}" * 5
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(refused, loop).result(timeout=MAX_SECONDS + 10) == "too_slow"
        assert pool.submit(render, None).result(timeout=10).startswith("<|im_start|>"), "and only once"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    ],
)
def test_a_template_that_reaches_out_of_the_sandbox_is_refused(source: str) -> None:
    assert refused(source) == "unsafe"


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's")
@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 100000000000 }}",
        "{{ 'a' | center(100000000000) }}",
        "{{ '%9999999999d' % 1 }}",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_a_template_that_eats_memory_is_stopped(source: str) -> None:
    assert refused(source) == "too_much_memory"
    assert len(bytes(64 * 1024 * 1024)) > 0, "and the limit is lifted again"


def test_a_template_too_long_or_writing_too_much_is_refused() -> None:
    assert refused("x" * 1_000_000) == "too_large"
    assert refused("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}") == "too_large"


@pytest.mark.parametrize("source", ["{% if %}", "{{ messages", "{% endfor %}", "{% frobnicate %}"])
def test_a_template_with_an_error_is_refused_with_its_line(source: str) -> None:
    with pytest.raises(TemplateError, match="line 1") as caught:
        render(source)
    assert caught.value.reason == "syntax"


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ nothing.at.all }}", "{{ 'a' + 1 }}", "{{ 'a'[0].x.y }}"])
def test_what_else_goes_wrong_in_a_template_is_a_typed_error(source: str) -> None:
    assert refused(source) == "failed"

"""Chat templates: from OpenAI messages to the prompt a model was trained on.

The template comes out of a model file, so it is somebody else's program. It runs in Jinja's immutable sandbox
(unsandboxed templates were CVE-2024-34359), and with limits on its own size, its output, its time and its memory
(`template_limits.py`); a template that breaks one ends in a typed error. Names and filters are those of Hugging
Face's `apply_chat_template`.

Runs in the worker. Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from .template_limits import Limits, TemplateError
from .tool_text import calls_in_text, tools_in_text

if TYPE_CHECKING:
    from jinja2 import Environment, Template

__all__ = ["CHATML", "ChatTemplate", "TemplateError"]

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that carry no template."""

MAX_SOURCE = 512 * 1024
MAX_OUTPUT = 16 * 1024 * 1024
MAX_INTEGER_BITS = 4096


class ChatTemplate:
    """A compiled template. `source` None or empty: ChatML. `bos` and `eos` are the texts of those tokens.

    Raises TemplateError (`too_large`, `syntax`, `too_slow`, …).
    """

    def __init__(self, source: str | None, bos: str = "", eos: str = "") -> None:
        from jinja2 import nodes

        source = source or CHATML
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                "too_large", f"the chat template has {len(source)} characters; {MAX_SOURCE} are allowed"
            )
        self._bos, self._eos = bos, eos
        self._limits = Limits()
        with self._limits:
            environment = _environment()
            parsed = environment.parse(source)
            words = {name.name for name in parsed.find_all(nodes.Name)}
            words |= {attribute.attr for attribute in parsed.find_all(nodes.Getattr)}
            words |= {constant.value for constant in parsed.find_all(nodes.Const) if isinstance(constant.value, str)}
            self._knows_tools, self._knows_calls = "tools" in words, bool(words & {"tool", "tool_calls"})
            self._template: Template = environment.from_string(parsed)

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        extra: dict[str, Any] | None = None,
        hide: Callable[[Any], Any] = lambda value: value,
    ) -> str:
        """The prompt for `messages` (OpenAI objects). `extra`: more variables, such as `enable_thinking`; none of them
        takes the place of the messages or the tools. A template that knows no tools gets them as text (`tool_text.py`).

        `hide`: what is done to messages, tools and `extra`, as templates get them, before they are rendered.

        Raises TemplateError.
        """
        with self._limits:  # a message, too, may be nested deeper than can be
            variables: dict[str, Any] = {
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **hide(extra or {}),
                "bos_token": self._bos,
                "eos_token": self._eos,
            }
            prepared = [_prepared(message) for message in messages]
            if not self._knows_calls:
                prepared = calls_in_text(prepared)
            if not tools or self._knows_tools:
                return self._written(variables, hide(prepared), hide(tools) if tools else None)
            try:
                return self._written(variables, hide(tools_in_text(prepared, tools)), None)
            except TemplateError as error:
                if error.reason != "refused":
                    raise
                # It takes no system message, most likely.
                return self._written(variables, hide(tools_in_text(prepared, tools, by="user")), None)

    def _written(self, variables: dict[str, Any], messages: Any, tools: Any) -> str:
        parts, size = [], 0
        for part in self._template.generate({**variables, "messages": messages, "tools": tools}):
            size += len(part)
            if size > MAX_OUTPUT:
                raise TemplateError("too_large", f"the chat template writes more than {MAX_OUTPUT} characters")
            parts.append(part)
        return "".join(parts)


def _prepared(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates expect it, where OpenAI's form differs."""
    made = dict(message)
    if made.get("role") == "developer":
        made["role"] = "system"
    content = made.get("content")
    if content is None:
        made["content"] = ""
    elif isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        made["content"] = "".join(str(part.get("text", "")) for part in content)
    if calls := made.get("tool_calls"):
        made["tool_calls"] = [_prepared_call(call) for call in calls]
    return made


def _prepared_call(call: dict[str, Any]) -> dict[str, Any]:
    """OpenAI sends arguments as a JSON text; templates write them with `tojson` and want the object."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _environment() -> Environment:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Hugging Face's `{% generation %}`: marks what a training run learns from. Plain text here."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Sandbox(ImmutableSandboxedEnvironment):
        # These two could keep C code busy for hours, where no limit on time can reach.
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            if isinstance(left, int) and isinstance(right, int):
                times = abs(right) if operator == "**" else 1
                bits = abs(left).bit_length() * times + abs(right).bit_length()
                if bits > MAX_INTEGER_BITS:
                    raise SecurityError("a number of the chat template becomes too large")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    environment.filters["tojson"] = _tojson
    for name in ("urlize", "pprint"):  # slow on hostile input, and in no chat template
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's filter: plain JSON, where Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError("refused", str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

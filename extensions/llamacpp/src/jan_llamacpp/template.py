"""Chat templates: from OpenAI messages to the prompt a model was trained on.

The template comes out of a model file, so it is somebody else's program. It runs in Jinja's immutable sandbox
(unsandboxed templates were CVE-2024-34359), and with limits on its own size, its output, its time and its
memory; a template that breaks one ends in a typed error. Names and filters are those of Hugging Face's
`apply_chat_template`.

Runs in the worker. Knows nothing of tokens. The memory limit works on Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

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
MAX_SECONDS = 1.5
MAX_MEMORY = 512 * 1024 * 1024
MAX_INTEGER_BITS = 4096


class TemplateError(Exception):
    """A template cannot be used, or not with these messages.

    `reason` is one of `too_large`, `syntax`, `unsafe`, `refused`, `too_slow`, `too_much_memory`, `failed`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _TooSlow(BaseException):
    """Thrown into the rendering thread when its time is over. No Exception: nothing on the way may swallow it."""


class ChatTemplate:
    """A compiled template. `source` None or empty: ChatML. `bos` and `eos` are the texts of those tokens.

    Raises TemplateError (`too_large`, `syntax`, `too_slow`, …).
    """

    def __init__(self, source: str | None, bos: str = "", eos: str = "") -> None:
        source = source or CHATML
        if len(source) > MAX_SOURCE:
            raise TemplateError(
                "too_large", f"the chat template has {len(source)} characters; {MAX_SOURCE} are allowed"
            )
        self._bos, self._eos = bos, eos
        self._limits = _Limits()
        with self._limits:
            self._template: Template = _environment().from_string(source)

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
        takes the place of the messages or the tools.

        `hide`: what is done to messages, tools and `extra`, as templates get them, before they are rendered.

        Raises TemplateError.
        """
        parts, size = [], 0
        with self._limits:  # a message, too, may be nested deeper than can be
            variables: dict[str, Any] = {
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **hide(extra or {}),
                "messages": hide([_prepared(message) for message in messages]),
                "tools": hide(tools) if tools else None,
                "bos_token": self._bos,
                "eos_token": self._eos,
            }
            for part in self._template.generate(variables):
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


class _Limits:
    """Limits on time and memory for the body of a `with`; what Jinja raises in it becomes TemplateError."""

    def __init__(self) -> None:
        self._memory = _MemoryLimit(MAX_MEMORY)
        self._time: _Alarm | _Watchdog

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._time = _Alarm() if main and hasattr(signal, "setitimer") else _Watchdog()
        self._memory.set()
        self._time.start(MAX_SECONDS)

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        late: BaseException | None = None
        try:
            self._time.stop()
        except _TooSlow as too_slow:  # it came while it was being stopped
            late = too_slow
        self._memory.lift()
        error = late or error
        if error is not None:
            raise _typed(error) from error


def _typed(error: BaseException) -> BaseException:
    """The error to tell of for whatever a stranger's program may raise."""
    from jinja2.exceptions import SecurityError, TemplateSyntaxError

    match error:
        case _TooSlow():
            return TemplateError("too_slow", f"the chat template ran longer than {MAX_SECONDS} s")
        case MemoryError():
            return TemplateError("too_much_memory", "the chat template takes too much memory")
        case SecurityError():
            return TemplateError("unsafe", f"the chat template does what it must not: {error}")
        case TemplateSyntaxError():
            return TemplateError("syntax", f"the chat template has an error in line {error.lineno}: {error}")
        case TemplateError():
            return error
        case Exception():
            return TemplateError("failed", f"the chat template failed: {type(error).__name__}: {error}")
    return error


class _Alarm:
    """Raises `_TooSlow` in the main thread by a timer signal: no other thread, so nothing to wait for.

    Reaches Python code only; long C calls are what the limits on numbers and memory are for.
    """

    def start(self, seconds: float) -> None:
        self._before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _ring(_number: int, _frame: object) -> None:
        raise _TooSlow


class _Watchdog:
    """The same where there is no timer signal (Windows, threads): another thread throws it into this one."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._stopped = True

    def _bark(self) -> None:
        with self._lock:
            if not self._stopped:
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(_TooSlow)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


class _MemoryLimit:
    """Lets the address space grow by at most `extra` bytes from `set` to `lift`. Linux only; elsewhere no limit.

    Other threads are under it meanwhile: what a hostile template can do with that is to end its own worker.
    """

    def __init__(self, extra: int) -> None:
        self._extra = extra
        self._before: tuple[int, int] | None = None
        self._statm: int | None = None
        if sys.platform == "linux":
            # Kept open: every call that may block costs a wait for the interpreter's lock.
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._statm)

    def set(self) -> None:
        if self._statm is None:
            return
        import resource

        now = int(os.pread(self._statm, 64, 0).split()[0]) * resource.getpagesize()
        self._before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = now + self._extra
        if soft != resource.RLIM_INFINITY:
            wanted = min(wanted, soft)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))

    def lift(self) -> None:
        if self._before is None:
            return
        import resource

        resource.setrlimit(resource.RLIMIT_AS, self._before)

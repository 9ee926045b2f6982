"""Tool calls in the text of an answer, taken out of it while it comes.

Three ways to write them, told apart by the model's chat template (`style_of`):

* `hermes`: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen and most others),
* `mistral`: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`,
* `llama`: the whole answer is `{"name": …, "parameters": {…}}`, perhaps after `<|python_tag|>` (Llama 3).

Where a call ends is found by reading its JSON, so an argument may hold any text, the closing tag too. What turns out
not to be a well-formed call is given back as text: nothing the model wrote is lost.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from typing import Any, Literal

from msgspec import Struct

from .markers import PYTHON_TAG, TOOL_CALLS, TOOL_CLOSE, TOOL_OPEN
from .reasoning import partial

__all__ = ["CallPart", "ToolCallStream", "ToolStyle", "style_of"]

ToolStyle = Literal["hermes", "mistral", "llama"]

_MARKERS: dict[ToolStyle, str] = {"hermes": TOOL_OPEN, "mistral": TOOL_CALLS, "llama": PYTHON_TAG}
_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
"""A call whose arguments begin here, with its name before them: it can be passed on as it comes."""


def style_of(template: str | None) -> ToolStyle:
    """How a model writes tool calls, by what its chat template says of earlier ones."""
    template = template or ""
    if TOOL_CALLS in template:
        return "mistral"
    if TOOL_OPEN in template or not (PYTHON_TAG in template or '"parameters": dictionary' in template):
        return "hermes"
    return "llama"


class CallPart(Struct, frozen=True):
    """A part of call `index`: its first has `id` and `name`. `arguments` of all parts make up a JSON text."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class ToolCallStream:
    """Feed it an answer's pieces in order, then `finish` once: each gives text that is no call, and parts of calls.

    `names`: the tools there are. `parallel`: more than one call is taken. `sure`: a grammar makes calls well-formed,
    so that their arguments can be passed on as they come; else a call is held until it is whole.
    """

    def __init__(
        self, style: ToolStyle = "hermes", names: Collection[str] = (), *, parallel: bool = True, sure: bool = False
    ) -> None:
        self._style, self._names, self._parallel, self._sure = style, frozenset(names), parallel, sure
        self._marker = _MARKERS[style]
        self._held = ""
        self._raw = ""  # what was read of a block since the last call in it
        self._state: Literal["text", "block", "call", "next"] = "text"
        self._scan = _Scan()
        self._count = 0
        self._begun = False  # the call that is being read was announced
        self._sent = 0  # and so far passed on
        self._inner: _Scan | None = None
        self._fresh, self._blank = True, ""  # white space between calls is left out
        self._wrote = False
        self._text: list[str] = []
        self._parts: list[CallPart] = []

    def feed(self, text: str) -> tuple[str, list[CallPart]]:
        """What is certain by now and was not returned yet."""
        self._held += text
        while self._advance(last=False):
            pass
        return self._taken()

    def finish(self) -> tuple[str, list[CallPart]]:
        """The rest. A call that was passed on in part stays what it is: the answer was cut off within it."""
        while self._advance(last=True):
            pass
        if not self._count:
            self._text.append(self._blank)
        self._blank = ""
        return self._taken()

    def _taken(self) -> tuple[str, list[CallPart]]:
        text, parts = "".join(self._text), self._parts
        self._text, self._parts = [], []
        return text, parts

    def _advance(self, *, last: bool) -> bool:
        """Take one step; False when nothing more can be said yet."""
        if not self._held:
            if last and self._state != "text" and self._raw:
                self._give_back()
            return False
        match self._state:
            case "text":
                return self._find(last)
            case "block":
                return self._enter(last)
            case "call":
                return self._read(last)
            case "next":
                return self._leave(last)

    # --- states ----------------------------------------------------------------------------------------------

    def _find(self, last: bool) -> bool:
        """In text: look for the beginning of calls."""
        if not self._parallel and self._count:
            self._say(self._held)
            return False
        if self._style == "llama" and not self._wrote:
            begun = self._held.lstrip()
            if begun.startswith("{"):
                self._raw, self._held = self._held[: len(self._held) - len(begun)], begun
                self._begin()
                return True
        at = self._held.find(self._marker)
        if at < 0:
            at = len(self._held) - (0 if last else partial(self._held, self._marker))
            self._say(self._held[:at], keep=self._held[at:])
            return False
        self._say(self._held[:at], keep=self._held[at + len(self._marker) :])
        self._raw, self._state = self._marker, "block"
        return True

    def _enter(self, last: bool) -> bool:
        """After the marker, or between calls: what must come before a call's JSON."""
        begun = self._held.lstrip()
        if not begun:
            return self._give_back() if last else False
        lists = self._style == "mistral" and self._raw.strip() == self._marker  # its list has not begun yet
        if not begun.startswith("[" if lists else "{"):
            return self._give_back()
        self._skip(len(self._held) - len(begun) + lists)
        if not lists:
            self._begin()
        return True

    def _read(self, last: bool) -> bool:
        """Within a call's JSON."""
        end = self._scan.feed(self._held)
        if self._sure and not self._begun:
            self._announce()
        if self._begun:
            self._pass_on()
        if end is None:
            if not last:
                return False
            if self._begun:
                self._held = self._raw = ""
                return False
            return self._give_back()
        if not self._begun and not self._whole(self._held[:end]):
            return self._give_back(end)
        self._held, self._raw, self._state = self._held[end:], "", "next"
        self._count += 1
        self._fresh, self._blank = True, ""
        return True

    def _leave(self, last: bool) -> bool:
        """After a call: the block's end, or another call in it."""
        begun = self._held.lstrip()
        if not begun or (self._style == "hermes" and len(begun) < len(TOOL_CLOSE) and TOOL_CLOSE.startswith(begun)):
            if not last:
                return False
            if not begun:
                self._held = ""
                return False
        more = {"hermes": "{", "mistral": ",", "llama": ";"}[self._style]
        close = {"hermes": TOOL_CLOSE, "mistral": "]", "llama": "\0"}[self._style]
        if begun.startswith(close):
            self._held, self._state = begun[len(close) :], "text"
        elif self._parallel and begun.startswith(more):
            self._raw = self._held[: len(self._held) - len(begun)]
            self._held, self._state = begun, "block"
            if more != "{":
                self._skip(1)
        else:
            self._state = "text"
        return True

    # --- calls -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._state, self._scan, self._begun, self._sent, self._inner = "call", _Scan(), False, 0, None

    def _announce(self) -> None:
        """Pass on the call's name, if it stands before its arguments and these have begun."""
        found = _HEAD.match(self._held)
        if found is None:
            return
        name = _loaded(found[1])
        if not isinstance(name, str) or not self._known(name) or not _sendable(name):
            return
        self._begun, self._sent, self._inner = True, found.end(), _Scan(found.end())
        self._parts.append(CallPart(self._count, "", _new_id(), name))

    def _pass_on(self) -> None:
        assert self._inner is not None
        if self._inner.end is not None:
            return
        end = self._inner.feed(self._held)
        till = len(self._held) if end is None else end
        if till > self._sent:
            self._parts.append(CallPart(self._count, self._held[self._sent : till]))
            self._sent = till

    def _whole(self, body: str) -> bool:
        """Pass on a call at once. False: it is none."""
        call = _loaded(body)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not self._known(call["name"]):
            return False
        arguments = call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):  # some models quote them once more
            if not isinstance(_loaded(arguments), dict):
                return False
        elif isinstance(arguments, dict):
            try:
                arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            except ValueError:  # 1e999
                return False
        else:
            return False
        if not _sendable(call["name"] + arguments):
            return False
        self._parts.append(CallPart(self._count, arguments, _new_id(), call["name"]))
        return True

    def _known(self, name: str) -> bool:
        """Only where nothing but its name says that it is a call, the name must be a tool's."""
        return self._style != "llama" or name in self._names

    # --- text ------------------------------------------------------------------------------------------------

    def _say(self, text: str, keep: str = "") -> None:
        """It is text. White space at the beginning and after a call waits for what follows it."""
        self._held, text = keep, self._blank + text
        if self._fresh and not text.strip():
            self._blank = text
            return
        self._text.append(text)
        self._blank, self._fresh, self._wrote = "", False, True

    def _skip(self, size: int) -> None:
        self._raw, self._held = self._raw + self._held[:size], self._held[size:]

    def _give_back(self, size: int = 0) -> bool:
        """It is no call: what was read of it, and `size` characters more, is text. The rest is looked at again."""
        text, rest = self._raw + self._held[:size], self._held[size:]
        self._raw, self._state = "", "text"
        self._text.append(self._blank + text)
        self._held, self._blank, self._fresh, self._wrote = rest, "", False, True
        return True


class _Scan:
    """Finds where a JSON object ends, over any number of feeds of the same, growing text."""

    def __init__(self, at: int = 0) -> None:
        self._at, self._depth = at, 0
        self._string = self._escaped = False
        self.end: int | None = None

    def feed(self, text: str) -> int | None:
        """The index after the object's last brace; None: it is not there yet."""
        for at in range(self._at, len(text)):
            if self.end is not None:
                break
            char = text[at]
            if self._string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._string = False
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.end = at + 1
        self._at = len(text)
        return self.end


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _sendable(text: str) -> bool:
    """Half a surrogate pair is no text that could be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _new_id() -> str:
    return "call_" + secrets.token_hex(12)

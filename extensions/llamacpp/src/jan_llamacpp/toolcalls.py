"""Tool calls in the text of an answer: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen).

Text before the first tag is passed on as it comes; from the tag on everything is held, and taken apart at the
end. What is not a well-formed call is given back as text: nothing the model wrote is lost.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from msgspec import Struct

__all__ = ["ParsedToolCall", "ToolCallStream"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class ParsedToolCall(Struct, frozen=True):
    """A call the model asks for. `arguments` is a JSON text, as OpenAI has it; `id` is made here."""

    id: str
    name: str
    arguments: str


class ToolCallStream:
    """Feed it an answer's pieces in order; then `finish` once."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of the text so far that is no tool call for certain and was not returned yet."""
        self._held += text
        at = self._held.find(OPEN)
        if at < 0:
            at = len(self._held) - _partial(self._held)
        shown, self._held = self._held[:at], self._held[at:]
        return shown

    def finish(self) -> tuple[str, list[ParsedToolCall]]:
        """What is left as text, and the calls. A call without its closing tag counts if it is whole JSON."""
        rest, calls = [], []
        held, self._held = self._held, ""
        while (at := held.find(OPEN)) >= 0:
            rest.append(held[:at])
            body, close, held = held[at + len(OPEN) :].partition(CLOSE)
            call = _parse(body)
            if call is None:
                rest.append(OPEN + body + close)
            else:
                calls.append(call)
        rest.append(held)
        text = "".join(rest)
        return (text.strip() if calls else text), calls


def _partial(text: str) -> int:
    """How many of the last characters could begin the opening tag."""
    for size in range(min(len(OPEN) - 1, len(text)), 0, -1):
        if text.endswith(OPEN[:size]):
            return size
    return 0


def _parse(body: str) -> ParsedToolCall | None:
    try:
        call: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):  # some models quote them once more
        try:
            if not isinstance(json.loads(arguments), dict):
                return None
        except (ValueError, RecursionError):
            return None
    elif isinstance(arguments, dict):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):  # 1e999
            return None
    else:
        return None
    try:
        (call["name"] + arguments).encode()
    except UnicodeEncodeError:  # half a surrogate pair: no text that could be sent
        return None
    return ParsedToolCall("call_" + secrets.token_hex(12), call["name"], arguments)

"""Answers in channels, as gpt-oss writes them (OpenAI's harmony format): thoughts, calls and text, each with a header.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

The counterpart of `reasoning.py` for such models. A call's header is written anew in one way, so that `toolcalls` can
read it: the model may say before or after the channel whom it calls. What has no header is text.
"""

from __future__ import annotations

import re

from .toolcalls.forms import CHANNEL, END, MESSAGE, START
from .toolcalls.patterns import partial

__all__ = ["HarmonyStream"]

MAX_HEADER = 300
_ENDS = (END, START, "<|call|>", "<|return|>")
_END = re.compile("|".join(map(re.escape, _ENDS)))
_CALLED = re.compile(r"\bto=functions\.([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)")


class HarmonyStream:
    """Feed it an answer's pieces in order, then `finish` once: each gives the thoughts and the text that are certain.

    `apart` False: thoughts stay in the text, with their header.
    """

    def __init__(self, *, apart: bool = True) -> None:
        self._apart = apart
        self._held = ""
        self._state = "header"
        self._out: tuple[list[str], list[str]] = ([], [])
        self._into = self._out[1]
        self._wrote: set[int] = set()

    def feed(self, text: str) -> tuple[str, str]:
        """Thoughts and text so far that were not returned yet."""
        self._held += text
        while self._held and self._advance(last=False):
            pass
        return self._taken()

    def finish(self) -> tuple[str, str]:
        """What was held."""
        while self._held and self._advance(last=True):
            pass
        return self._taken()

    def _taken(self) -> tuple[str, str]:
        thoughts, text = ("".join(parts) for parts in self._out)
        for parts in self._out:
            parts.clear()
        return thoughts, text

    def _advance(self, *, last: bool) -> bool:
        """Take one step; False when nothing more can be said yet."""
        match self._state:
            case "header":
                return self._open(last)
            case "body":
                return self._read(last)
        self._out[1].append(self._held)
        self._held = ""
        return False

    def _open(self, last: bool) -> bool:
        begun = self._held.lstrip()
        marks = (CHANNEL, START, "to=")
        if not any(begun.startswith(mark) or (mark.startswith(begun) and not last) for mark in marks):
            self._state = "plain"
            return True
        header, found, rest = self._held.partition(MESSAGE)
        if not found:
            if last or len(header) > MAX_HEADER:
                self._state = "plain"
            return self._state == "plain"
        self._held, self._state = rest, "body"
        called, channel = _CALLED.search(header), _CHANNEL.search(header)
        thinks = not called and channel is not None and channel[1] == "analysis"
        into = 0 if thinks and self._apart else 1
        self._into = self._out[into]
        if called:
            self._into.append(f"{CHANNEL}commentary to=functions.{called[1]} <|constrain|>json{MESSAGE}")
        elif thinks and not self._apart:
            self._into.append(header + MESSAGE)
        elif into in self._wrote:
            self._into.append("\n\n")
        self._wrote.add(into)
        return True

    def _read(self, last: bool) -> bool:
        found = _END.search(self._held)
        if found is None:
            sure = len(self._held) - (0 if last else partial(self._held, *_ENDS))
            self._into.append(self._held[:sure])
            self._held = self._held[sure:]
            return False
        self._into.append(self._held[: found.start()])
        self._held = self._held[found.start() if found[0] == START else found.end() :]
        self._state = "header"
        return True

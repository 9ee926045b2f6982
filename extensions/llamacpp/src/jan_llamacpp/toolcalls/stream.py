"""The calls and the text of an answer, while it comes.

Where a call's JSON ends is found by reading it, so an argument may hold any text, a closing tag too. What turns out not
to be a well-formed call is given back as text: nothing the model wrote is lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from .forms import FORMS
from .patterns import More, Pattern, Span, endings, partial
from .reading import ObjectReader, ParameterReader, Reader
from .values import sendable

__all__ = ["CallPart", "ToolCallStream"]

MAX_WASTED = 1 << 20
"""After so many characters of what were no calls after all, the rest of an answer is text: each may have been read to
the answer's end in vain.
"""


class CallPart(Struct, frozen=True):
    """A part of call `index`: its first has `id` and `name`. `arguments` of all parts make up a JSON text."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class ToolCallStream:
    """Feed it an answer's pieces in order, then `finish` once: each gives text that is no call, and parts of calls.

    `form`: how the model writes them (a key of `FORMS`). `tools`: the tools there are, with the schemas of their
    arguments. `parallel`: more than one call is taken. `sure`: a grammar makes calls well-formed, so that their
    arguments can be passed on as they come; else a call is held until it is whole. `alone`: an answer that begins with
    something else is text to its end.
    """

    def __init__(
        self,
        form: str = "hermes",
        tools: Mapping[str, Any] | None = None,
        *,
        parallel: bool = True,
        sure: bool = False,
        alone: bool = False,
    ) -> None:
        self._form, self._tools = FORMS[form], tools or {}
        self._parallel, self._sure, self._alone = parallel, sure, alone
        before, self._slot, after = self._form.halves()
        begin, comma = self._form.begin, self._form.comma
        self._heads = [Pattern(*begin, before)] if begin else []
        if before or self._form.bare:
            self._heads.append(Pattern(before))
        self._more = Pattern(before) if comma is None or not comma.strip() else Pattern(comma, before)
        self._tail, self._end = endings(after), endings(self._form.end)
        self._starters = [first for pattern in self._heads if (first := pattern.first)]
        self._held = ""
        self._state: Literal["text", "open", "call", "tail", "next", "end"] = "text"
        self._left: list[Pattern] = []  # what may still come before what follows in `tail` and `end`
        self._reader: Reader | None = None
        self._body = 0  # where the call's arguments begin in what is held
        self._unsent = ""
        self._count = 0
        self._certain = sure  # not of a call that begins where no grammar looks for it
        self._begun = False  # the call that is being read was announced
        self._wasted = 0
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
            return False
        match self._state:
            case "text":
                return self._find(last)
            case "open":
                return self._enter(last)
            case "call":
                return self._read(last)
            case "tail" | "end":
                return self._leave(last)
            case "next":
                return self._follow(last)

    # --- states ----------------------------------------------------------------------------------------------

    def _find(self, last: bool) -> bool:
        """In text: look for the beginning of calls."""
        done = (self._count and not self._parallel) or (self._alone and self._wrote) or self._wasted > MAX_WASTED
        if self._form.bare and not self._wrote and not done:
            begun = self._held.lstrip()
            if begun.startswith("{"):
                self._say(self._held[: len(self._held) - len(begun)], keep=begun)
                self._state = "open"
                return True
        found = [] if done else [at for each in self._starters if (at := self._held.find(each)) >= 0]
        if found:
            self._say(self._held[: min(found)], keep=self._held[min(found) :])
            self._state = "text" if self._alone and self._wrote else "open"
            return True
        at = len(self._held) - (0 if last or done else partial(self._held, *self._starters))
        self._say(self._held[:at], keep=self._held[at:])
        return False

    def _enter(self, last: bool) -> bool:
        """What is held begins as calls do: is it one?"""
        ways = [self._opened(pattern) for pattern in self._heads]
        if not self._begin(ways):
            if "more" in ways and not last:
                return False
            self._give_back(max((len(each) for each in self._starters if self._held.startswith(each)), default=1))
        return True

    def _read(self, last: bool) -> bool:
        """Within a call."""
        reader = self._reader
        assert reader is not None
        self._unsent += reader.feed(self._held)
        if self._certain and not self._begun and reader.name is not None and self._takes(reader.name):
            self._announce(reader.name)
        if self._begun:
            self._pass_on()
        if reader.end is None and not reader.broken and not last:
            return False
        if reader.end is None and self._begun:
            self._unsent = "" if reader.broken else reader.rest(self._held)
            self._pass_on()
            self._ended(reader.at if reader.broken else len(self._held))
            self._state = "text"
            return True
        if not self._begun:
            whole = reader.whole(self._held, self._unsent) if reader.end is not None else None
            if whole is None or not self._takes(whole[0]) or not sendable(whole[1]):
                self._give_back(reader.end or max(1, self._body))
                return True
            self._announce(*whole)
        self._ended(reader.end or 0)
        self._state, self._left = "tail", list(self._tail)
        return True

    def _leave(self, last: bool) -> bool:
        """After a call's arguments, or its block: what belongs to it, as far as it is there."""
        while self._left:
            end = self._left[0].match(self._held)
            if end == "more" and not last:
                return False
            if isinstance(end, Span):
                self._held = self._held[end.end :]
            del self._left[0]
        self._state = "next" if self._state == "tail" else "text"
        return True

    def _follow(self, last: bool) -> bool:
        """After a call: another one in the same block?"""
        ways = [self._opened(self._more)] if self._parallel else []
        if not self._begin(ways):
            if "more" in ways and not last:
                return False
            self._state, self._left = "end", list(self._end)
        return True

    # --- calls -----------------------------------------------------------------------------------------------

    def _opened(self, pattern: Pattern) -> Span | More | None:
        """Whether a call begins with what is held, and where its arguments do."""
        found = pattern.match(self._held)
        if not isinstance(found, Span) or self._slot == "{parameters}":
            return found
        if found.end == len(self._held):
            return "more"
        return found if self._held[found.end] == "{" else None

    def _begin(self, ways: list[Span | More | None]) -> bool:
        """Read the first of these that is a call. False: none is."""
        found = next((way for way in ways if isinstance(way, Span)), None)
        if found is None:
            return False
        self._state, self._body, self._begun, self._unsent = "call", found.end, False, ""
        self._certain = self._sure and (self._form.bare or found is ways[0])
        name = found.slots.get("name")
        if self._slot == "{parameters}":
            assert name is not None
            self._reader = ParameterReader(self._form, found.end, name, self._tools.get(name))
        else:
            self._reader = ObjectReader(found.end, name)
        return True

    def _announce(self, name: str, arguments: str = "") -> None:
        self._begun = True
        self._parts.append(CallPart(self._count, arguments, "call_" + secrets.token_hex(12), name))

    def _pass_on(self) -> None:
        if self._unsent:
            self._parts.append(CallPart(self._count, self._unsent))
            self._unsent = ""

    def _ended(self, end: int) -> None:
        self._held, self._reader = self._held[end:], None
        self._count += 1
        self._fresh, self._blank = True, ""

    def _takes(self, name: str) -> bool:
        """Only where nothing but its name says that it is a call, the name must be a tool's."""
        return sendable(name) and (not self._form.bare or name in self._tools)

    # --- text ------------------------------------------------------------------------------------------------

    def _say(self, text: str, keep: str = "") -> None:
        """It is text. White space at the beginning and after a call waits for what follows it."""
        self._held, text = keep, self._blank + text
        if self._fresh and not text.strip():
            self._blank = text
            return
        self._text.append(text)
        self._blank, self._fresh, self._wrote = "", False, True

    def _give_back(self, size: int) -> None:
        """It is no call: its first `size` characters are text. The rest is looked at again."""
        self._wasted += max(size, self._reader.at if self._reader else 0)
        self._reader, self._state = None, "text"
        self._say(self._held[:size], keep=self._held[size:])

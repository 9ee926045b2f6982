"""One tool call, read while it comes: what it calls, with which arguments, and where it ends.

Both readers are fed the same, growing text and go on where they stopped. What they return are parts of the arguments,
as JSON; together they are the whole.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

from .forms import Form
from .patterns import Pattern, Span, partial
from .values import dumped, loaded, property_of, takes_text, typed

__all__ = ["ObjectReader", "ParameterReader", "Reader"]

_HEAD = re.compile(
    r'\{\s*(?:"tool_call_id"\s*:\s*"[^"\\]*"\s*,\s*)?"(?:name|tool_name)"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""A call whose arguments begin here, with its name before them: it can be passed on as it comes."""
_MAX_HEAD = 1000
_OUTSIDE = re.compile(r"[ \t\r\n:,+\-.0-9eEtrufalsn]*")
"""What JSON has outside of strings, beside quotes and brackets."""
_INSIDE = re.compile(r'(?:[^"\\]+|\\.)*', re.DOTALL)


class Reader(Protocol):
    """`name`: once it is known. `end`: where the call ends. `broken`: it is none. `at`: how far it was read."""

    name: str | None
    end: int | None
    broken: bool
    at: int

    def feed(self, text: str) -> str:
        """What is certain of the arguments by now and was not returned yet."""

    def rest(self, text: str) -> str:
        """What there is of the arguments beyond that, in a call that is cut off here."""

    def whole(self, text: str, arguments: str) -> tuple[str, str] | None:
        """The name and the arguments of a call that was read to its end; None: it is none. `arguments`: what `feed`
        returned.
        """


class ObjectReader:
    """Arguments in a JSON object that begins at `at`, after the call's `name`; if None, the object says it, too."""

    def __init__(self, at: int, name: str | None) -> None:
        self.name = name
        self.end: int | None = None
        self.broken, self.at = False, at
        self._begin, self._named = at, name is not None
        self._scan = _Scan(at)
        self._inner = self._scan if self._named else None
        self._sent = at

    def feed(self, text: str) -> str:
        """See Reader."""
        end = self._scan.feed(text)
        self.at, self.broken, self.end = self._scan.at, self._scan.broken, end
        if self._inner is None and (found := _HEAD.match(text, self._begin, self._begin + _MAX_HEAD)):
            name = loaded(found[1])
            if isinstance(name, str):
                self.name, self._inner, self._sent = name, _Scan(found.end()), found.end()
        if self._inner is None:
            return ""
        end = self._inner.end if self._inner.end is not None else self._inner.feed(text)
        sent, self._sent = self._sent, max(self._sent, self._inner.at if end is None else end)
        return text[sent : self._sent]

    def rest(self, text: str) -> str:
        """See Reader."""
        return ""

    def whole(self, text: str, arguments: str) -> tuple[str, str] | None:
        """See Reader. The name may stand after the arguments, and these be quoted once more."""
        call = loaded(text[self._begin : self.end])
        if not isinstance(call, dict):
            return None
        if self._named:
            return self._checked(self.name, call)
        given = [call[key] for key in ("arguments", "parameters") if key in call]
        return self._checked(call.get("name", call.get("tool_name")), given[0] if given else {})

    @staticmethod
    def _checked(name: Any, arguments: Any) -> tuple[str, str] | None:
        if isinstance(arguments, str):
            made, arguments = arguments, loaded(arguments)
        else:
            try:
                made = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            except ValueError:  # 1e999
                return None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        return name, made


class ParameterReader:
    """Arguments one by one, each a name and a text, beginning at `at`. `schema`: the tool's, for what the texts mean.

    A value that can only be a string is passed on while it comes, any other when it is whole.
    """

    def __init__(self, form: Form, at: int, name: str, schema: Any) -> None:
        self.name: str | None = name
        self.end: int | None = None
        self.broken, self.at = False, at
        self._schema = schema
        before, _, after = form.parameter.partition("{value}")
        self._edge = "\n" if after.startswith("\n") else ""
        self._head = Pattern(before.rstrip("\n") if self._edge else before, tight=True)
        self._close = after.strip()
        self._tail = Pattern(form.halves()[2])
        self._value: Any = None
        """The schema of the value that is being read; None between arguments."""
        self._text = False
        self._looked = 0
        self._count = 0

    def feed(self, text: str) -> str:
        """See Reader."""
        made: list[str] = []
        while (part := self._read(text) if self._value is not None else self._enter(text)) is not None:
            made.append(part)
        if self._text:
            # White space may turn out to be the value's edge; what ends it may have begun.
            sure = len(text) - partial(text, self._close, self._edge + self._close)
            if sure > self.at:
                made.append(_escaped(text[self.at : sure]))
                self.at = sure
        return "".join(made)

    def rest(self, text: str) -> str:
        """See Reader."""
        if self._value is None:
            return ""
        return _escaped(text[self.at :]) if self._text else text[self.at :].strip()

    def whole(self, text: str, arguments: str) -> tuple[str, str] | None:
        """See Reader."""
        return self.name or "", arguments

    def _enter(self, text: str) -> str | None:
        """Before an argument, or the call's end. None: nothing more can be said yet."""
        if self.end is not None or self.broken:
            return None
        head, tail = self._head.match(text, self.at), self._tail.match(text, self.at)
        if isinstance(tail, Span):
            self.end = self.at
            return "}" if self._count else "{}"
        if not isinstance(head, Span):
            self.broken = head is None and tail is None
            return None
        if self._edge and head.end == len(text):
            return None
        self.at = head.end + (self._edge != "" and text[head.end] == self._edge)
        key = head.slots["key"]
        self._value = property_of(self._schema, key)
        self._text, self._looked = takes_text(self._value), self.at
        self._count += 1
        return f"{'{' if self._count == 1 else ', '}{dumped(key)}: " + '"' * self._text

    def _read(self, text: str) -> str | None:
        """Within a value. None: it has not ended yet."""
        end = text.find(self._close, max(self.at, self._looked))
        if end < 0:
            self._looked = len(text) - len(self._close) + 1
            return None
        till = end - (self._edge != "" and end > self.at and text[end - 1] == self._edge)
        value = text[self.at : till]
        made = _escaped(value) + '"' if self._text else typed(value, self._value)
        self.at, self._value, self._text = end + len(self._close), None, False
        return made


class _Scan:
    """Finds where a JSON object ends, over any number of feeds of the same, growing text."""

    def __init__(self, at: int) -> None:
        self.at, self._depth, self._string = at, 0, False
        self.end: int | None = None
        self.broken = False

    def feed(self, text: str) -> int | None:
        """The index after the object's last brace; None: it is not there yet, or (`broken`) never will be."""
        while self.end is None and not self.broken:
            found = (_INSIDE if self._string else _OUTSIDE).match(text, self.at)
            assert found is not None
            self.at = found.end()
            if self.at == len(text) or text[self.at] == "\\":
                self.broken = self.at < len(text) and not self._string
                break
            match text[self.at]:
                case '"':
                    self._string = not self._string
                case "{" | "[":
                    self._depth += 1
                case "}" | "]":
                    self._depth -= 1
                case _:
                    self.broken = True
                    break
            self.at += 1
            if self._depth == 0:
                self.end = self.at
        return self.end


def _escaped(text: str) -> str:
    """The inside of a JSON string."""
    return dumped(text)[1:-1]

"""A grammar's text, read as llama.cpp reads it (`src/llama-grammar.cpp`), within limits.

It says where the text is wrong or too large, not whether the rules can be used (`gbnf_rules.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .gbnf_rules import MAX_REPEAT, Body, Chars, GrammarError, Item, Rules

__all__ = ["read_rules"]

MAX_TEXT = 512 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 200
"""Parentheses within each other: llama.cpp reads them recursively."""

_NAME = re.compile(r"[A-Za-z0-9-]+")
_INT = re.compile(r"[0-9]+")
_BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}
_DIGITS = frozenset("0123456789abcdefABCDEF")


def read_rules(text: str) -> Rules:
    """The rules of a grammar. Raises GrammarError."""
    if len(text) > MAX_TEXT:
        raise GrammarError(f"the grammar has {len(text)} characters; {MAX_TEXT} are allowed")
    if "\0" in text:
        raise GrammarError("the grammar holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise GrammarError("the grammar holds half a surrogate pair") from None
    return _Reader(text).read()


@dataclass(slots=True)
class _Level:
    """What is being read within one pair of parentheses (or one rule)."""

    rule: int
    alternatives: Body = field(default_factory=lambda: [[]])
    before: int = 0
    """How many rules there were when it began."""
    symbol: int = 0
    """Where the last symbol begins: what a repetition after it repeats."""
    weight: int = 1
    """Rules in the last symbol, repetitions included."""

    @property
    def items(self) -> list[Item]:
        return self.alternatives[-1]


class _Reader:
    """`_at`: what is read next; `_size`: parts of the grammar so far, those that repetitions make included."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._names: dict[str, int] = {}
        self._bodies: list[Body | None] = []
        self._size = 0

    def read(self) -> Rules:
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._take(_NAME, "a rule's name")
            self._skip(lines=False)
            if self._here(3) != "::=":
                raise self._fail("::= is missing")
            self._at += 3
            self._skip(lines=True)
            number = self._number(name)
            if self._bodies[number] is not None:
                raise self._fail(f"the rule {name!r} is defined a second time")
            self._read_alternatives(number)
            if self._at < len(self._text) and self._here() not in "\r\n":
                raise self._fail(f"{self._here()!r} is not expected")
            self._skip(lines=True)
        return Rules(self._names, self._bodies)

    def _read_alternatives(self, rule: int) -> None:
        levels = [_Level(rule)]
        while self._at < len(self._text):
            level, char = levels[-1], self._here()
            if char == "|":
                self._at += 1
                self._skip(lines=True)
                level.alternatives.append([])
                level.symbol, level.weight = 0, 1
                self._grow(1)
            elif char == "(":
                if len(levels) > MAX_DEPTH:
                    raise self._fail(f"more than {MAX_DEPTH} parentheses are within each other")
                self._at += 1
                self._skip(lines=True)
                before = len(self._bodies)
                levels.append(_Level(self._new_rule(), before=before))
            elif char == ")" and len(levels) > 1:
                self._at += 1
                del levels[-1]
                self._bodies[level.rule] = level.alternatives
                outer = levels[-1]
                outer.symbol, outer.weight = len(outer.items), len(self._bodies) - level.before
                outer.items.append(level.rule)
                self._skip(lines=len(levels) > 1)
            elif char in "*+?{":
                self._repeat(level, *self._read_count(char, len(levels) > 1))
            else:
                symbol = self._read_symbol(char)
                if symbol is None:
                    break
                self._grow(len(symbol))
                level.symbol, level.weight = len(level.items), 1
                level.items.extend(symbol)
                self._skip(lines=len(levels) > 1)
        if len(levels) > 1:
            raise self._fail("a parenthesis is not closed")
        self._bodies[rule] = levels[0].alternatives

    def _read_symbol(self, char: str) -> list[Item] | None:
        """A literal, a set of characters, any character, or a rule's name; None: something else stands here."""
        if char == '"':
            self._at += 1
            literal: list[Item] = []
            while self._here() != '"':
                code = self._read_char()
                literal.append(Chars(((code, code),)))
            self._at += 1
            return literal
        if char == "[":
            return self._read_set()
        if char == ".":
            self._at += 1
            return [Chars((), negated=True)]
        if char in "<!":
            raise self._fail("tokens are not supported, only text is")
        if _NAME.match(char):
            return [self._number(self._take(_NAME, "a rule's name"))]
        return None

    def _read_set(self) -> list[Item]:
        self._at += 1
        negated = self._here() == "^"
        self._at += negated
        ranges = []
        while self._here() != "]":
            low = high = self._read_char()
            if self._here() == "-" and self._here(2) != "-]":
                self._at += 1
                high = self._read_char()
            ranges.append((low, high))
        self._at += 1
        return [Chars(tuple(ranges), negated)] if ranges else []

    def _read_char(self) -> int:
        char = self._here()
        if not char:
            raise self._fail("it ends within a literal or a set")
        self._at += 1
        if char != "\\":
            return ord(char)
        kind = self._here()
        self._at += 1
        if kind in _HEX:
            digits = self._here(_HEX[kind])
            self._at += len(digits)
            if len(digits) < _HEX[kind] or not set(digits) <= _DIGITS:
                raise self._fail(f"\\{kind} needs {_HEX[kind]} hexadecimal digits")
            return int(digits, 16)
        if kind not in _ESCAPES:
            raise self._fail(f"there is no escape \\{kind}")
        return ord(_ESCAPES[kind])

    def _read_count(self, char: str, nested: bool) -> tuple[int, int | None]:
        """How often the symbol before may come: least and most."""
        self._at += 1
        self._skip(lines=nested)
        if char != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        least = self._read_int()
        most: int | None = least
        self._skip(lines=nested)
        if self._here() == ",":
            self._at += 1
            self._skip(lines=nested)
            most = self._read_int() if _INT.match(self._here()) else None
            self._skip(lines=nested)
        if self._here() != "}":
            raise self._fail("} is missing after a repetition")
        self._at += 1
        self._skip(lines=nested)
        return least, most

    def _read_int(self) -> int:
        digits = self._take(_INT, "a number")
        if len(digits) > 6 or int(digits) > MAX_REPEAT:
            raise self._fail(f"a repetition may be at most {MAX_REPEAT}")
        return int(digits)

    def _repeat(self, level: _Level, least: int, most: int | None) -> None:
        """`S{m,n}` as llama.cpp rewrites it: m times S, then a rule of its own for each that may still come."""
        symbol = level.items[level.symbol :]
        if not symbol:
            raise self._fail("there is nothing to repeat")
        if most is not None and most < least:
            raise self._fail(f"a repetition from {least} to {most} is none")
        times = most or least or 1
        if level.weight * times > MAX_REPEAT:
            raise self._fail(f"repetitions within each other come to more than {MAX_REPEAT}")
        level.weight *= times
        self._grow((len(symbol) + 2) * (times + 1))
        del level.items[level.symbol :]
        level.items.extend(symbol * least)
        last: int | None = None
        for _ in range(1 if most is None else most - least):
            rule = self._new_rule()
            following = [rule] if most is None else [last] if last is not None else []
            self._bodies[rule] = [[*symbol, *following], []]
            last = rule
        if last is not None:
            level.items.append(last)

    def _fail(self, message: str) -> GrammarError:
        return GrammarError(f"line {self._text.count(chr(10), 0, self._at) + 1} of the grammar: {message}")

    def _here(self, count: int = 1) -> str:
        return self._text[self._at : self._at + count]

    def _skip(self, lines: bool) -> None:
        found = (_BLANK_LINES if lines else _BLANK).match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._fail(f"{what} is missing")
        self._at = found.end()
        return found[0]

    def _number(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = self._new_rule()
        return number

    def _new_rule(self) -> int:
        self._grow(1)
        self._bodies.append(None)
        return len(self._bodies) - 1

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > MAX_NODES:
            raise GrammarError(f"the grammar has more than {MAX_NODES} parts")

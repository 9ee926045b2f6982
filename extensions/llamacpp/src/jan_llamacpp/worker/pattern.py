"""Regular expressions of JSON schemas (`pattern`), as grammar for the JSON string that holds the text.

ECMA 262's syntax as far as schemas use it: literals, `.`, sets, `\\d \\w \\s` and their opposites, groups,
alternatives, repetitions, `^` and `$` at the ends. Not: look-around, back references, `\\b`, lazy repetitions.
"""

from __future__ import annotations

from .gbnf_rules import MAX_REPEAT, GrammarError

__all__ = ["characters", "pattern_rule"]

MAX_PATTERN = 1000
MAX_GROUPS = 30
LAST = 0x10FFFF
Ranges = list[tuple[int, int]]

_SETS: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2028, 0x2029), (0xFEFF, 0xFEFF)],
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_ESCAPED = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}
"""What JSON writes with a backslash, and how."""
_RAW: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, LAST)]
"""What may stand in a JSON string as it is."""


def characters(ranges: Ranges) -> str:
    """A grammar for one character of these ranges, as it is written within a JSON string."""
    parts = []
    plain = _common(ranges, _RAW)
    if plain:
        parts.append("[" + "".join(f"\\U{low:08X}-\\U{high:08X}" for low, high in plain) + "]")
    for code, letter in _ESCAPED.items():
        if any(low <= code <= high for low, high in ranges):
            parts.append('"\\\\' + {'"': '\\"', "\\": "\\\\"}.get(letter, letter) + '"')
    if not parts:
        raise GrammarError("a pattern allows no character that JSON can carry")
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def pattern_rule(pattern: str) -> str:
    """A grammar for all texts that `pattern` is found in. Raises GrammarError."""
    if len(pattern) > MAX_PATTERN:
        raise GrammarError(f"a pattern has {len(pattern)} characters; {MAX_PATTERN} are allowed")
    return _Reader(pattern).whole()


def _common(some: Ranges, others: Ranges) -> Ranges:
    pairs = [(max(a, c), min(b, d)) for a, b in some for c, d in others]
    return sorted((low, high) for low, high in pairs if low <= high)


def _others(ranges: Ranges) -> Ranges:
    """All characters but these."""
    left, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            left.append((at, low - 1))
        at = max(at, high + 1)
    return [*left, (at, LAST)] if at <= LAST else left


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0

    def whole(self) -> str:
        anything = f"{characters([(0, LAST)])}*"
        ways = self._ways()
        if self._at < len(self._pattern):
            raise self._fail("a parenthesis is closed that was not opened")
        made = [
            " ".join([*([] if begun else [anything]), body, *([] if ended else [anything])])
            for begun, body, ended in ways
        ]
        return " | ".join(made)

    def _fail(self, why: str) -> GrammarError:
        return GrammarError(f"the pattern {self._pattern[:60]!r} cannot be used: {why}")

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise self._fail("it ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _ways(self) -> list[tuple[bool, str, bool]]:
        """The alternatives; with each, whether it begins with `^` and ends with `$`."""
        ways = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            ways.append(self._sequence())
        return ways

    def _sequence(self) -> tuple[bool, str, bool]:
        begun = self._peek() == "^"
        self._at += begun
        parts: list[str] = []
        while (char := self._peek()) and char not in "|)":
            if char == "$":
                self._at += 1
                if self._peek() and self._peek() not in "|)":
                    raise self._fail("$ stands in the middle")
                return begun, " ".join(parts) or '""', True
            parts.append(self._repeated(self._one()))
        return begun, " ".join(parts) or '""', False

    def _one(self) -> str:
        char = self._next()
        if char == "(":
            if self._peek() == "?":
                if self._pattern[self._at : self._at + 2] != "?:":
                    raise self._fail("look-around and named groups are not supported")
                self._at += 2
            self._depth += 1
            if self._depth > MAX_GROUPS:
                raise self._fail(f"more than {MAX_GROUPS} groups are within each other")
            ways = self._ways()
            if any(begun or ended for begun, _, ended in ways):
                raise self._fail("^ and $ are supported at the ends alone")
            if self._next() != ")":
                raise self._fail("a parenthesis is not closed")
            self._depth -= 1
            return f"({' | '.join(body for _, body, _ in ways)})"
        if char == ".":
            return characters(_others([(10, 10), (13, 13), (0x2028, 0x2029)]))
        if char == "[":
            return characters(self._set())
        if char == "\\":
            return characters(self._escape())
        if char in "*+?{":
            raise self._fail("there is nothing to repeat")
        if char == "^":
            raise self._fail("^ stands in the middle")
        return characters([(ord(char), ord(char))])

    def _set(self) -> Ranges:
        negated = self._peek() == "^"
        self._at += negated
        ranges: Ranges = []
        while (char := self._next()) != "]":
            found = self._escape() if char == "\\" else [(ord(char), ord(char))]
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                char = self._next()
                last = self._escape() if char == "\\" else [(ord(char), ord(char))]
                if len(found) != 1 or len(last) != 1 or found[0][0] > last[0][1]:
                    raise self._fail("a range in a set is none")
                found = [(found[0][0], last[0][1])]
            ranges += found
        return _others(ranges) if negated else ranges

    def _escape(self) -> Ranges:
        char = self._next()
        if char.lower() in _SETS:
            return _SETS[char] if char in _SETS else _others(_SETS[char.lower()])
        if char in _CONTROLS:
            code = _CONTROLS[char]
        elif char in "xu":
            digits = self._pattern[self._at : self._at + (2 if char == "x" else 4)]
            self._at += len(digits)
            try:
                code = int(digits, 16)
            except ValueError:
                raise self._fail(f"\\{char} needs hexadecimal digits") from None
        elif char.isalnum():
            raise self._fail(f"\\{char} is not supported")
        else:
            code = ord(char)
        return [(code, code)]

    def _repeated(self, one: str) -> str:
        char = self._peek()
        if not char or char not in "*+?{":
            return one
        self._at += 1
        count = char
        if char == "{":
            end = self._pattern.find("}", self._at)
            least, comma, most = self._pattern[self._at : end].partition(",")
            if end < 0 or not least.isdecimal() or not (most.isdecimal() or not most):
                raise self._fail("a repetition is none")
            if max(int(least[:9]), int(most[:9] or 0)) > MAX_REPEAT or (most and int(most) < int(least)):
                raise self._fail(f"a repetition is none, or more than {MAX_REPEAT}")
            self._at = end + 1
            count = f"{{{int(least)}{comma}{int(most) if most else ''}}}"
        if self._peek() and self._peek() in "*+?{":
            raise self._fail("lazy and double repetitions are not supported")
        return one + count

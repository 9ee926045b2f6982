"""llama.cpp's grammar notation (GBNF), read and followed here before native code sees it.

llama.cpp's own reader loops for ever on `{5,2}`, takes memory without limit for nested repetitions, overlooks left
recursion through rules that can be empty, and aborts the process when a token is accepted that does not fit. So every
grammar is read here first, by the same rules (`src/llama-grammar.cpp`), and refused with a reason when it is wrong, too
large, or lets the number of ways to read a text explode. It also says what fits, character by character, which is
what the tests and the search for triggers use; the work for each token is done in C (`grammar.py`).

Pure: knows nothing of tokens, models or C. References to tokens (`<[7]>`) are not supported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Gbnf", "GrammarError"]

MAX_TEXT = 512 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 200
"""Parentheses within each other: llama.cpp reads them recursively."""
MAX_REPEAT = 2000
"""llama.cpp's MAX_REPETITION_THRESHOLD."""
MAX_PATHS = 1_000_000
"""Ways from a rule down to its first characters; llama.cpp follows each of them once."""
MAX_CHAIN = 4000
"""Rules that begin with each other, one below the other: llama.cpp follows them recursively."""
MAX_STACKS = 512
"""Ways to read a text that are followed at the same time."""
PROBE_STEPS, PROBE_CODES, PROBE_WORK = 24, 48, 20_000

_NAME = re.compile(r"[A-Za-z0-9-]+")
_INT = re.compile(r"[0-9]+")
_BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}
_DIGITS = frozenset("0123456789abcdefABCDEF")

Stack = tuple[int, ...]
END = -1


class GrammarError(ValueError):
    """A grammar cannot be used. The message says why and, where it can, in which line."""


@dataclass(frozen=True, slots=True)
class _Chars:
    """One character of these ranges, or of all others."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def has(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges) != self.negated


_Item = _Chars | int
"""A character, or the number of a rule."""


@dataclass(slots=True)
class _Level:
    """What is being read within one pair of parentheses (or one rule)."""

    rule: int
    alternatives: list[list[_Item]] = field(default_factory=lambda: [[]])
    before: int = 0
    """How many rules there were when it began."""
    symbol: int = 0
    """Where the last symbol begins: what a repetition after it repeats."""
    weight: int = 1
    """Rules in the last symbol, repetitions included."""

    @property
    def items(self) -> list[_Item]:
        return self.alternatives[-1]


class Gbnf:
    """A grammar that was read and found fit for use. `root`: the rule a text must follow.

    Raises GrammarError.
    """

    def __init__(self, text: str, root: str = "root") -> None:
        if len(text) > MAX_TEXT:
            raise GrammarError(f"the grammar has {len(text)} characters; {MAX_TEXT} are allowed")
        if "\0" in text:
            raise GrammarError("the grammar holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise GrammarError("the grammar holds half a surrogate pair") from None
        self._text, self._at = text, 0
        self._names: dict[str, int] = {}
        self._rules: list[list[list[_Item]] | None] = []
        self._size = 0
        self._read()
        if root not in self._names:
            raise GrammarError(f"the grammar has no rule {root!r}")
        self._check_defined()
        self._check_beginnings()
        self._link()
        self.start = self._expand([(node,) if node != END else () for node in self._first[self._names[root]]])
        self._probe()

    # --- following a text ------------------------------------------------------------------------------------

    def step(self, stacks: frozenset[Stack], text: str) -> frozenset[Stack]:
        """Where `text` leads from `stacks` (begin with `start`). Empty: it does not fit. Raises GrammarError when there
        are too many ways to read it.
        """
        for char in text:
            code = ord(char)
            moved = [
                stack[:-1] + self._after[stack[-1]]
                for stack in stacks
                if stack and self._chars[stack[-1]].has(code)  # type: ignore[union-attr]
            ]
            stacks = self._expand(moved)
        return stacks

    def matches(self, text: str) -> bool:
        """Whether `text` is a whole text of this grammar."""
        return () in self.step(self.start, text)

    def _expand(self, todo: list[Stack]) -> frozenset[Stack]:
        """Replace the rules on top of the stacks by what they begin with."""
        seen, found = set(todo), set()
        while todo:
            stack = todo.pop()
            chars = self._chars[stack[-1]] if stack else None
            if not stack or not isinstance(chars, int):
                found.add(stack)
                if len(found) > MAX_STACKS:
                    raise GrammarError("the grammar can be read in too many ways at once: it is too ambiguous")
                continue
            rest = stack[:-1] + self._after[stack[-1]]
            for node in self._first[chars]:
                following = rest if node == END else (*rest, node)
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
            if len(seen) > 64 * MAX_STACKS:
                raise GrammarError("the grammar can be read in too many ways at once: it is too ambiguous")
        return frozenset(found)

    def _link(self) -> None:
        """Number all items. `_first`: where a rule's alternatives begin; `_after`: what comes after an item."""
        self._chars: list[_Item] = []
        self._after: list[tuple[int, ...]] = []
        self._first: list[tuple[int, ...]] = []
        for rule in self._rules:
            firsts = []
            for items in rule or []:
                firsts.append(len(self._chars) if items else END)
                for number, item in enumerate(items):
                    self._chars.append(item)
                    self._after.append((len(self._chars),) if number + 1 < len(items) else ())
            self._first.append(tuple(firsts))

    # --- checks ----------------------------------------------------------------------------------------------

    def _check_defined(self) -> None:
        for name, number in self._names.items():
            if self._rules[number] is None:
                raise GrammarError(f"the rule {name!r} is used and not defined")

    def _check_beginnings(self) -> None:
        """No rule may begin with itself, nor begin in too many ways or too deep below."""
        rules = [rule or [] for rule in self._rules]
        users: list[set[int]] = [set() for _ in rules]
        for number, rule in enumerate(rules):
            for items in rule:
                for item in items:
                    if isinstance(item, int):
                        users[item].add(number)
        empty = [False] * len(rules)
        todo = set(range(len(rules)))
        while todo:
            number = todo.pop()
            if not empty[number] and any(
                all(isinstance(i, int) and empty[i] for i in items) for items in rules[number]
            ):
                empty[number] = True
                todo |= users[number]
        begins: list[list[int]] = []
        for rule in rules:
            heads: list[int] = []
            for items in rule:
                for item in items:
                    if not isinstance(item, int):
                        break
                    heads.append(item)
                    if not empty[item]:
                        break
            begins.append(heads)
        waiting = [len(heads) for heads in begins]
        below: list[list[int]] = [[] for _ in rules]
        for number, heads in enumerate(begins):
            for head in heads:
                below[head].append(number)
        ready = [number for number, count in enumerate(waiting) if count == 0]
        paths, chain, done = [1] * len(rules), [1] * len(rules), 0
        while ready:
            number, done = ready.pop(), done + 1
            for user in below[number]:
                paths[user] += paths[number]
                chain[user] = max(chain[user], chain[number] + 1)
                waiting[user] -= 1
                if waiting[user] == 0:
                    ready.append(user)
        if done < len(rules):
            stuck = next((name for name, number in self._names.items() if waiting[number]), None)
            if stuck is None:
                raise GrammarError("what is repeated can be empty (left recursion)")
            raise GrammarError(f"the rule {stuck!r} can begin with itself (left recursion)")
        if sum(paths) > MAX_PATHS or max(chain) > MAX_CHAIN:
            raise GrammarError("the grammar has too many ways to begin: it is too ambiguous or too deep")

    def _probe(self) -> None:
        """Follow the characters that leave the most ways open, as a text may that means harm."""
        edges = {code for item in self._chars if not isinstance(item, int) for pair in item.ranges for code in pair}
        codes = [chr(code) for code in sorted(edges)[:PROBE_CODES] if not 0xD800 <= code < 0xE000 and code <= 0x10FFFF]
        stacks, work = self.start, 0
        for _ in range(PROBE_STEPS):
            work += len(codes) * len(stacks)
            ways = [self.step(stacks, code) for code in codes]
            stacks = max(ways, key=len, default=frozenset())
            if not stacks or work > PROBE_WORK:
                return

    # --- reading ---------------------------------------------------------------------------------------------

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
        self._rules.append(None)
        return len(self._rules) - 1

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > MAX_NODES:
            raise GrammarError(f"the grammar has more than {MAX_NODES} parts")

    def _read(self) -> None:
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._take(_NAME, "a rule's name")
            self._skip(lines=False)
            if self._here(3) != "::=":
                raise self._fail("::= is missing")
            self._at += 3
            self._skip(lines=True)
            number = self._number(name)
            if self._rules[number] is not None:
                raise self._fail(f"the rule {name!r} is defined a second time")
            self._read_alternatives(number)
            if self._at < len(self._text) and self._here() not in "\r\n":
                raise self._fail(f"{self._here()!r} is not expected")
            self._skip(lines=True)

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
                before = len(self._rules)
                levels.append(_Level(self._new_rule(), before=before))
            elif char == ")" and len(levels) > 1:
                self._at += 1
                del levels[-1]
                self._rules[level.rule] = level.alternatives
                outer = levels[-1]
                outer.symbol, outer.weight = len(outer.items), len(self._rules) - level.before
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
        self._rules[rule] = levels[0].alternatives

    def _read_symbol(self, char: str) -> list[_Item] | None:
        """A literal, a set of characters, any character, or a rule's name; None: something else stands here."""
        if char == '"':
            self._at += 1
            literal: list[_Item] = []
            while self._here() != '"':
                code = self._read_char()
                literal.append(_Chars(((code, code),)))
            self._at += 1
            return literal
        if char == "[":
            return self._read_set()
        if char == ".":
            self._at += 1
            return [_Chars((), negated=True)]
        if char in "<!":
            raise self._fail("tokens are not supported, only text is")
        if _NAME.match(char):
            return [self._number(self._take(_NAME, "a rule's name"))]
        return None

    def _read_set(self) -> list[_Item]:
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
        return [_Chars(tuple(ranges), negated)] if ranges else []

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
            self._rules[rule] = [[*symbol, *following], []]
            last = rule
        if last is not None:
            level.items.append(last)

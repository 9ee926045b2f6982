"""A grammar in llama.cpp's notation (GBNF), checked and followed before native code sees it.

llama.cpp's own reader loops for ever on `{5,2}`, takes memory without limit for nested repetitions, overlooks left
recursion through rules that can be empty, and aborts the process when a token is accepted that does not fit. So every
grammar is read first (`gbnf_reader.py`), its rules are checked (`gbnf_rules.py`), and it is refused with a reason when
it is wrong, too large, or lets the number of ways to read a text explode. What is here follows it and says what fits,
character by character, which is what the tests and the search for triggers use; the work for each token is done in C
(`grammar.py`).

Pure: knows nothing of tokens, models or C. References to tokens (`<[7]>`) are not supported.
"""

from __future__ import annotations

from .gbnf_reader import read_rules
from .gbnf_rules import GrammarError, Item, Rules

__all__ = ["Gbnf"]

MAX_STACKS = 512
"""Ways to read a text that are followed at the same time."""
PROBE_STEPS, PROBE_CODES, PROBE_WORK = 24, 48, 20_000

Stack = tuple[int, ...]
END = -1


class Gbnf:
    """A grammar that was read and found fit for use. `root`: the rule a text must follow.

    Raises GrammarError.
    """

    def __init__(self, text: str, root: str = "root") -> None:
        rules = read_rules(text)
        if root not in rules.names:
            raise GrammarError(f"the grammar has no rule {root!r}")
        rules.check()
        self._link(rules)
        self.start = self._expand([(node,) if node != END else () for node in self._first[rules.names[root]]])
        self._probe()

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

    def _link(self, rules: Rules) -> None:
        """Number all items. `_first`: where a rule's alternatives begin; `_after`: what comes after an item."""
        self._chars: list[Item] = []
        self._after: list[tuple[int, ...]] = []
        self._first: list[tuple[int, ...]] = []
        for body in rules.bodies:
            firsts = []
            for items in body or []:
                firsts.append(len(self._chars) if items else END)
                for number, item in enumerate(items):
                    self._chars.append(item)
                    self._after.append((len(self._chars),) if number + 1 < len(items) else ())
            self._first.append(tuple(firsts))

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

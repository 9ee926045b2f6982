"""The rules of a grammar: what they are made of, and whether a grammar made of them can be used.

Neither how they are written (`gbnf_reader.py`) nor how a text is read by them (`gbnf.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["MAX_REPEAT", "Body", "Chars", "GrammarError", "Item", "Rules"]

MAX_REPEAT = 2000
"""llama.cpp's MAX_REPETITION_THRESHOLD."""
MAX_PATHS = 1_000_000
"""Ways from a rule down to its first characters; llama.cpp follows each of them once."""
MAX_CHAIN = 4000
"""Rules that begin with each other, one below the other: llama.cpp follows them recursively."""


class GrammarError(ValueError):
    """A grammar cannot be used. The message says why and, where it can, in which line."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges, or of all others."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def has(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges) != self.negated


Item = Chars | int
"""A character, or the number of a rule."""
Body = list[list[Item]]
"""A rule's alternatives, each a sequence of items."""


@dataclass(slots=True)
class Rules:
    """Rules by their numbers, and the numbers of those with names. A body is None while its rule is not defined."""

    names: dict[str, int] = field(default_factory=dict)
    bodies: list[Body | None] = field(default_factory=list)

    def check(self) -> None:
        """Each rule must be defined; none may begin with itself, nor begin in too many ways or too deep below.

        Raises GrammarError.
        """
        for name, number in self.names.items():
            if self.bodies[number] is None:
                raise GrammarError(f"the rule {name!r} is used and not defined")
        begins = self._begins()
        waiting = [len(heads) for heads in begins]
        below: list[list[int]] = [[] for _ in begins]
        for number, heads in enumerate(begins):
            for head in heads:
                below[head].append(number)
        ready = [number for number, count in enumerate(waiting) if count == 0]
        paths, chain, done = [1] * len(begins), [1] * len(begins), 0
        while ready:
            number, done = ready.pop(), done + 1
            for user in below[number]:
                paths[user] += paths[number]
                chain[user] = max(chain[user], chain[number] + 1)
                waiting[user] -= 1
                if waiting[user] == 0:
                    ready.append(user)
        if done < len(begins):
            stuck = next((name for name, number in self.names.items() if waiting[number]), None)
            if stuck is None:
                raise GrammarError("what is repeated can be empty (left recursion)")
            raise GrammarError(f"the rule {stuck!r} can begin with itself (left recursion)")
        if sum(paths) > MAX_PATHS or max(chain) > MAX_CHAIN:
            raise GrammarError("the grammar has too many ways to begin: it is too ambiguous or too deep")

    def _begins(self) -> list[list[int]]:
        """Of each rule, those that it can begin with."""
        empty = self._empty()
        begins: list[list[int]] = []
        for body in self.bodies:
            heads: list[int] = []
            for items in body or []:
                for item in items:
                    if not isinstance(item, int):
                        break
                    heads.append(item)
                    if not empty[item]:
                        break
            begins.append(heads)
        return begins

    def _empty(self) -> list[bool]:
        """Of each rule, whether it can be empty."""
        bodies = [body or [] for body in self.bodies]
        users: list[set[int]] = [set() for _ in bodies]
        for number, body in enumerate(bodies):
            for items in body:
                for item in items:
                    if isinstance(item, int):
                        users[item].add(number)
        empty = [False] * len(bodies)
        todo = set(range(len(bodies)))
        while todo:
            number = todo.pop()
            if not empty[number] and any(
                all(isinstance(i, int) and empty[i] for i in items) for items in bodies[number]
            ):
                empty[number] = True
                todo |= users[number]
        return empty

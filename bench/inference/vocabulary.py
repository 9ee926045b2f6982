"""A byte-level BPE vocabulary of any size, generated: every word is made of lower-case letters and reached letter by
letter, so its merges are one for each token and every text has exactly one reading.

Real in form (llama.cpp tokenizes with it as with any other), but no language: English falls apart into letters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, product
from string import ascii_lowercase

__all__ = ["SPECIALS", "TEMPLATE", "Vocabulary"]

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPACE = "Ġ"
"""GPT-2's stand-in for a space."""

TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
FRAME = 19
"""Tokens that the template puts around one user message; `user` and `assistant` are read letter by letter."""


@dataclass(frozen=True)
class Vocabulary:
    """`size` tokens: the 256 bytes, then words with a space before them, then SPECIALS."""

    size: int

    @cached_property
    def tokens(self) -> list[str]:
        """As GGUF has them: GPT-2's printable stand-ins for bytes."""
        return [*_byte_symbols(), *islice(_words(), self.size - 256 - len(SPECIALS)), *SPECIALS]

    @property
    def merges(self) -> list[str]:
        """In the order of their ranks: a word is what it was without its last letter, and that letter."""
        return [f"{word[:-1]} {word[-1]}" for word in self.tokens[256 : self.first_special]]

    @property
    def first_special(self) -> int:
        """The id of the first of SPECIALS: end of text, start of a message, end of a message."""
        return self.size - len(SPECIALS)

    @property
    def words(self) -> range:
        """The ids of the words: all that a model made here ever answers with."""
        return range(256, self.first_special)

    def text(self, ids: list[int]) -> str:
        """The text of words, with its leading space."""
        return "".join(self.tokens[id] for id in ids).replace(SPACE, " ")

    def message(self, tokens: int, source: random.Random) -> str:
        """A user message of random words that takes `tokens` tokens with the template around it."""
        first = "abc"  # no space before it: a letter is a token
        words = source.choices(self.words[702:], k=tokens - FRAME - len(first))
        return first + self.text(words)


def _words() -> Iterator[str]:
    """Every word of one letter, then of two, and so on: the beginning of a word is always a word."""
    for length in count(1):
        for letters in product(ascii_lowercase, repeat=length):
            yield SPACE + "".join(letters)


def _byte_symbols() -> list[str]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    symbols = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [symbols[byte] for byte in range(256)]

"""Guessing tokens that repeat earlier ones: prompt-lookup (n-gram) speculative decoding.

Editing, quoting and summarising repeat what stands in the prompt. Where the last tokens were seen before, those that
followed them then are a guess at what follows now, and one decode can check many. What is kept is only what would
have been drawn anyway: each row is sampled in turn, and the first token that differs from the guess ends the checking.
So the answer is the one without guesses, token for token, as far as the model's numbers do not depend on how many
rows a decode has (they can, in the last digits, as with any batching).

`Lookup` makes the guesses for one sequence: before it proposes any it follows in silence whether it
would have been right, and it stakes no more time on them than right ones have won. `Costs` knows what a decode of so
many rows takes on this machine, so that guesses are checked only where that pays.

Source: Saxena, "Prompt Lookup Decoding" (2023); the draft length after Leviathan et al. (arXiv:2211.17192), with
measured costs in place of a constant ratio.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST_DRAFTED", "Costs", "Lookup"]

GRAM = 3
"""Tokens that must have been seen together."""
TRUST = 2
"""Silent guesses that must have been right, one after the other, before one is proposed."""
MOST_DRAFTED = 48
"""Tokens guessed at a time, for all sequences together."""
CREDIT = 4
"""How many guesses of the run at hand weigh as much as all that were made in the text before."""
STAKE, MOST_STAKE = 2.0, 32.0
"""The time that a text's guesses may waste, to begin with and after much that was won: in that of one of its tokens.
A text that leads astray again and again costs this once."""
EARNED = 0.02
"""What a right guess in silence adds to it."""
HOPE = 0.1
"""What each row adds to the cost of a decode, in decodes of one row, before that was measured."""
GAIN = 1.05
"""By how much guesses must promise to pay: the costs are guesses, too."""
AGAIN = 64
"""Times that guesses were not worth it, after which larger decodes are tried again."""
LONGEST_TEXT = 65_536
"""Only the last so many tokens of a longer text are remembered."""


class Lookup:
    """Guesses for one sequence. It reads `tokens`, the sequence's own list, and keeps up with it by `seen`."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._where: dict[tuple[int, ...], int] = {}
        self._next = 0  # where in tokens the guess for the coming token stands; 0: no guess
        self._right = 0  # silent or spoken guesses right in a row
        self._rate = 0.8  # of the guesses that were trusted, spoken or not
        self.stake = STAKE
        self._noted = max(0, len(tokens) - LONGEST_TEXT)
        self._note()

    def seen(self) -> None:
        """A token was appended to the text."""
        tokens, at = self._tokens, self._next
        right = at > 0 and tokens[at] == tokens[-1]
        if self._right >= TRUST:
            self._rate += 0.05 * (right - self._rate)
            self.settle(EARNED * right)
        if right:
            self._next, self._right = at + 1, self._right + 1
        else:
            self._right = 0
            self._next = self._where.get(tuple(tokens[-GRAM:]), 0)
        self._note()

    def forget(self) -> None:
        """The text was cut: positions mean other tokens now."""
        self._where.clear()
        self._next = self._right = self._noted = 0
        self._note()

    def guess(self, most: int) -> list[int]:
        """What may follow, at most `most` tokens: twice as many as were right in a row; none where none is trusted."""
        if self._right < TRUST or most <= 0:
            return []
        tokens, at = self._tokens, self._next
        length = min(most, 2 * self._right)
        draft = list(tokens[at : at + length])
        period = len(tokens) - at
        while len(draft) < length:  # the repetition runs into itself
            draft.append(draft[len(draft) - period])
        return draft

    def settle(self, won: float) -> None:
        """So many tokens' time was won by guesses; below 0: is spent on some."""
        self.stake = min(MOST_STAKE, self.stake + won)

    @property
    def rate(self) -> float:
        """How likely the next guess is right, as far as this text and this run of right ones tell."""
        return (self._right + CREDIT * self._rate) / (self._right + CREDIT)

    def _note(self) -> None:
        """Remember where each n-gram was last seen, but for the one at the end, which is what is looked up."""
        tokens = self._tokens
        for end in range(max(self._noted, GRAM), len(tokens)):
            self._where[tuple(tokens[end - GRAM : end])] = end
        self._noted = max(self._noted, len(tokens))


class Costs:
    """Seconds that a decode of so many rows takes, learned from those that ran.

    A size that was never tried is hoped to be cheap, so that it is tried; one that was found dear is tried again after
    a while, because the machine, or the text's length, may have changed.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._tried: dict[int, int] = {}
        self._declined = 0

    def learn(self, rows: int, seconds: float) -> None:
        """A decode of `rows` rows, all with logits, took `seconds`."""
        bucket = _bucket(rows)
        self._tried[bucket] = tried = self._tried.get(bucket, 0) + 1
        if tried == 1 and bucket > 1:
            return  # the first of its size is slow: llama.cpp lays out its graph
        scaled = seconds * (1 + HOPE * (bucket - 1)) / (1 + HOPE * (rows - 1))
        known = self._seconds.get(bucket)
        # A stalled step says nothing of the next: what is far above the usual counts as little.
        self._seconds[bucket] = scaled if known is None else known + 0.2 * (min(scaled, 2 * known) - known)

    def of(self, rows: int) -> float:
        """Expected seconds of a decode of `rows` rows, after the nearest size that was measured."""
        if not self._seconds:
            return 1.0 + HOPE * (rows - 1)
        bucket = _bucket(rows)
        near = min(self._seconds, key=lambda known: abs(known.bit_length() - bucket.bit_length()))
        return self._seconds[near] * (1 + HOPE * (rows - 1)) / (1 + HOPE * (near - 1))

    def extra(self, rows: int, guesses: int) -> float:
        """What these guesses add to a decode of `rows` rows, in the time of one of its tokens."""
        usual = self.of(rows)
        return (self.of(rows + guesses) - usual) / usual * rows

    def worth(self, rows: int, draft: int, rate: float, stake: float = MOST_STAKE) -> int:
        """How many of `draft` guesses, each right with probability `rate`, to add to a decode of `rows` rows, if that
        may cost up to `stake`.
        """
        best, most, length = 0, rows / self.of(rows) * GAIN, draft
        while length >= 2:
            expected = rows + (rate * (1 - rate**length) / (1 - rate) if rate < 1 else length)
            speed = expected / self.of(rows + length)
            if speed > most:
                best, most = length, speed
            length //= 2
        if not best and draft >= 2:
            self._declined += 1
            if self._declined >= AGAIN:
                self._declined = 0
                for bucket in [known for known in self._seconds if known > _bucket(rows)]:
                    del self._seconds[bucket]
        while best >= 2 and self.extra(rows, best) > stake:
            best //= 2
        return best if best >= 2 else 0


def _bucket(rows: int) -> int:
    """1, 2, 4, 8, 16, …: the nearest power of two that is not below."""
    return 1 << (rows - 1).bit_length()

"""From logits to tokens to text, for one sequence: draws as long as guesses hold, and knows when an answer is over."""

from __future__ import annotations

from .context import Context
from .model import Model
from .reply import Finish, Stats
from .sequence import Sequence
from .speculation import Lookup
from .stepping import Part

__all__ = ["Drawer"]


class Drawer:
    """For the scheduler's thread. `stats` counts along."""

    def __init__(self, model: Model, context: Context, stats: Stats, *, speculate: bool) -> None:
        self._model, self._context = model, context
        self._stats, self._speculate = stats, speculate

    def draw(self, part: Part, row: int) -> tuple[str, Finish | None]:
        """Draw a token from each row from `row` on, as long as the guesses hold: the text they add, and how it ends.

        Raises Refusal, or whatever the sampler raises.
        """
        slot, context = part.slot, self._context
        sequence = slot.sequence
        assert sequence is not None
        assert sequence.sampler is not None
        sampler, guesses = sequence.sampler, part.tokens[len(part.tokens) - part.guesses :]
        if sequence.lookup is None and self._speculate and sequence.params.speculate is not False:
            sequence.lookup = Lookup(sequence.tokens)
        texts: list[str] = []
        finish: Finish | None = None
        accepted = 0
        for number in range(part.guesses + 1):
            token = sampler.sample(
                context.logits(row + number), context.handle, row + number, sequence.tokens, sequence.prompt_left
            )
            if sampler.last_logprob is not None:
                sequence.logprobs.append(sampler.last_logprob)
            finish = self._take(sequence, token, texts)
            right = number < part.guesses and token == guesses[number]
            if right:
                slot.cache.append(token)
                accepted += 1
            if finish is not None or not right:
                break
        if part.guesses:
            context.truncate(slot.index, len(slot.cache))
            self._judge(sequence, part.guesses, accepted)
        return "".join(texts), finish

    def _take(self, sequence: Sequence, token: int, texts: list[str]) -> Finish | None:
        """A token was drawn: what it adds to the text, and whether it ends the answer."""
        self._stats.generated += 1
        sequence.tokens.append(token)
        sequence.n_generated += 1
        sequence.unsent += 1
        if sequence.lookup is not None:
            sequence.lookup.seen()
        piece = self._model.piece(token)
        if piece is None and not sequence.params.ignore_eos:
            texts.append(sequence.text.finish())
            return "stop"
        texts.append(sequence.text.feed(piece or b""))
        if sequence.text.stopped:
            return "stop"
        if sequence.n_generated >= sequence.most:
            texts.append(sequence.text.finish())
            return "length"
        return None

    def _judge(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        sequence.drafted += drafted
        sequence.accepted += accepted
        if sequence.lookup is not None:
            sequence.lookup.settle(accepted)
        self._stats.drafted += drafted
        self._stats.accepted += accepted

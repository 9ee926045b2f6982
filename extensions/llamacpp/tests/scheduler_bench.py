"""The scheduler on a workbench: stepped by hand, in the process of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jan_llamacpp.worker.options import LoadOptions
from jan_llamacpp.worker.protocol import Failed, Pieces
from jan_llamacpp.worker.reply import StepPiece, Usage
from jan_llamacpp.worker.request import GenerateParams, Prompt, Sampling

__all__ = ["Bench", "MakeBench"]

GREEDY = Sampling(temperature=0)


class Bench:
    """A scheduler on a model, worked by hand; keeps what it sends."""

    def __init__(self, engine_dir: Path, model: Path, options: LoadOptions) -> None:
        from jan_llamacpp.worker.engine import make_engine

        self.sent: list[Pieces | Failed] = []
        self.info, self.prompts, self.scheduler = make_engine(
            engine_dir, str(model), options, self.sent.append, lambda _done: True
        )

    def ask(self, id: int, prompt: str | list[int] = "\n", **params: Any) -> None:
        tokens = self.prompts.tokens(Prompt(text=prompt)) if isinstance(prompt, str) else prompt
        params.setdefault("sampling", GREEDY)
        self.scheduler.submit(id, tokens, GenerateParams(Prompt(tokens=tokens), **params))

    def run(self, until: Callable[[], bool] = lambda: False, most: int = 20_000) -> None:
        """Step until nothing is left to do, or `until` holds."""
        for _ in range(most):
            if until() or (not self.scheduler.step() and not self.scheduler.stats().queued):
                return
        raise AssertionError("it does not end")

    def pieces(self, id: int) -> list[tuple[int, StepPiece]]:
        return [(p.step, p) for s in self.sent if isinstance(s, Pieces) for p in s.pieces if p.id == id]

    def text(self, id: int) -> str:
        return "".join(piece.text for _, piece in self.pieces(id))

    def end(self, id: int) -> StepPiece:
        ends = [piece for _, piece in self.pieces(id) if piece.finish is not None]
        assert len(ends) == 1, "a generation ends exactly once"
        return ends[0]

    def usage(self, id: int) -> Usage:
        usage = self.end(id).usage
        assert usage is not None
        return usage

    def failure(self, id: int) -> Failed:
        failures = [sent for sent in self.sent if isinstance(sent, Failed) and sent.id == id]
        assert len(failures) == 1
        return failures[0]


MakeBench = Callable[..., Bench]

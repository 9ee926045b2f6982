"""What scheduling may not change: on a machine that computes exactly, every answer is the one it would be alone.

Real models cannot show this to the last bit, because llama.cpp's numbers depend a little on how many rows a decode has.
So here the model is a function of the tokens before, and the context keeps cells as llama.cpp does and complains where
the scheduler uses one that is not there. Everything else is what runs in the worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as AnySequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker import cache
from jan_llamacpp.worker.protocol import Failed, Pieces
from jan_llamacpp.worker.reply import Usage
from jan_llamacpp.worker.request import GenerateParams, Prompt, Sampling
from jan_llamacpp.worker.scheduler import Scheduler
from jan_llamacpp.worker.speculation import Costs
from jan_llamacpp.worker.threads import ThreadGovernor

N_VOCAB, END, N_CTX, N_BATCH = 8, 0, 96, 16


def logits_after(tokens: AnySequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The model: depends on all tokens, and likes to repeat what followed the last two before."""
    digest = hashlib.blake2b(bytes(tokens), digest_size=N_VOCAB).digest()
    row = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) / 256
    row[END] *= 0.8
    for at in range(len(tokens) - 2, 1, -1):
        if tokens[at - 2 : at] == tokens[-2:]:
            row[tokens[at]] += 0.75
            break
    return row


class ExactContext:
    """`Context`, with cells that are tokens. `n_cells` for all sequences; shared ones are counted once."""

    n_batch, split, handle = N_BATCH, False, None

    def __init__(self, n_cells: int) -> None:
        self._n_cells = n_cells
        self._cells: dict[int, list[tuple[int, int]]] = {}  # by sequence: (token, number of the cell)
        self._rows: list[tuple[int, int, int, bool]] = []
        self._logits: dict[int, Any] = {}
        self._made = 0

    def put(self, at: int, seq: int, position: int, tokens: AnySequence[int], outputs: int) -> int:
        del self._rows[at:]
        for number, token in enumerate(tokens):
            self._rows.append((seq, position + number, token, number >= len(tokens) - outputs))
        return at + len(tokens)

    def decode(self, rows: int) -> int:
        assert rows <= N_BATCH
        self._logits.clear()
        for number, (seq, position, token, output) in enumerate(self._rows[:rows]):
            cells = self._cells.setdefault(seq, [])
            assert position == len(cells), "a token is put where the ones before it are"
            self._made += 1
            cells.append((token, self._made))
            if output:
                self._logits[number] = logits_after([token for token, _ in cells])
        used = {cell for cells in self._cells.values() for _, cell in cells}
        assert len(used) <= self._n_cells, "a decode never fails for want of room"
        return 0

    def logits(self, row: int) -> Any:
        return self._logits[row]

    def truncate(self, seq: int, length: int) -> bool:
        del self._cells.setdefault(seq, [])[length:]
        return True

    def clear(self, seq: int) -> None:
        self._cells.pop(seq, None)

    def share(self, source: int, target: int, length: int) -> None:
        assert not self._cells.get(target)
        self._cells[target] = self._cells[source][:length]

    def state_size(self, seq: int) -> int:
        return len(self._cells.get(seq, []))

    def state(self, seq: int) -> bytearray:
        return bytearray(token for token, _ in self._cells[seq])

    def restore(self, seq: int, data: bytearray) -> bool:
        assert not self._cells.get(seq)
        self._made += len(data)
        self._cells[seq] = [(token, self._made - number) for number, token in enumerate(data)]
        return True

    def shift(self, *_: int) -> bool:
        return False  # to shift is not exact: what is left is read again

    def set_threads(self, count: int) -> None: ...

    def abort(self) -> None: ...

    def resume(self) -> None: ...


def scheduler(sent: list[Any], *, n_seq: int, n_cells: int, speculate: bool, memory: int) -> Scheduler:
    model: Any = SimpleNamespace(
        n_vocab=N_VOCAB,
        shareable=True,
        piece=lambda token: None if token == END else bytes([96 + token]),
        written=lambda token: bytes([96 + token]),
        ends=lambda token: token == END,
    )
    context: Any = ExactContext(n_cells)
    return Scheduler(
        SimpleNamespace(), model, context, n_seq=n_seq, n_ctx=N_CTX, n_cells=n_cells, max_queue=99,  # type: ignore[arg-type]
        emit=sent.append, governor=ThreadGovernor(1, adapt=False), speculate=speculate, memory=memory,
    )  # fmt: skip


def alone(prompt: list[int], most: int | None) -> tuple[str, str]:
    """The answer, computed in the plainest way there is."""
    tokens, text = list(prompt), ""
    limit = N_CTX if most is None else len(prompt) + most
    while len(tokens) < limit:
        tokens.append(int(logits_after(tokens).argmax()))
        if tokens[-1] == END:
            return text, "stop"
        text += chr(96 + tokens[-1])
    return text, "length"


token = st.integers(1, 4)
ask = st.tuples(
    st.lists(token, min_size=1, max_size=40),
    st.none() | st.integers(1, 50),
    st.sampled_from(["interactive", "batch"]),
    st.integers(0, 12),  # steps before it comes
    st.integers(1, 2),  # answers
)


@given(
    st.lists(ask, min_size=1, max_size=8),
    st.integers(1, 3),
    st.sampled_from([N_CTX, 2 * N_CTX]),
    st.booleans(),
    st.lists(st.integers(0, 7), max_size=2),
    st.sampled_from([0, 50, 1000]),
)
def test_every_answer_is_the_one_it_would_be_alone(
    asks: list[tuple[list[int], int | None, Any, int, int]],
    n_seq: int,
    n_cells: int,
    speculate: bool,
    cancelled: list[int],
    memory: int,
) -> None:
    sent: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "CELL_STEP", 16)  # idle ones are in the way sooner
        patch.setattr(cache, "KEEP_MIN", 4)
        patch.setattr(cache, "SHARE_MIN", 4)
        patch.setattr(Costs, "worth", lambda self, rows, draft, rate, stake: draft)  # guess wherever one can
        s = scheduler(sent, n_seq=n_seq, n_cells=n_cells, speculate=speculate, memory=memory)
        for id, (prompt, most, priority, wait, n) in enumerate(asks):
            params = GenerateParams(
                Prompt(tokens=prompt), Sampling(temperature=0), max_tokens=most, priority=priority, n=n
            )
            s.submit(id, prompt, params)
            for _ in range(wait):
                s.step()
            if id in cancelled:
                s.cancel(id)
        for _ in range(5000):
            if not s.step() and not s.stats().queued:
                break
        else:
            raise AssertionError("it does not end")
    assert not [each for each in sent if isinstance(each, Failed)]
    answers: dict[tuple[int, int], str] = {}
    ends: dict[tuple[int, int], tuple[str, Usage]] = {}
    for frame in sent:
        assert isinstance(frame, Pieces)
        for piece in frame.pieces:
            key = piece.id, piece.index
            assert key not in ends, "nothing comes after the end"
            answers[key] = answers.get(key, "") + piece.text
            if piece.finish is not None:
                assert piece.usage is not None
                ends[key] = piece.finish, piece.usage
    for id, (prompt, most, _, _, n) in enumerate(asks):
        text, finish = alone(prompt, most)
        for index in range(n):
            told, usage = ends[id, index]
            if told == "cancelled":
                assert id in cancelled
                assert text.startswith(answers[id, index])
            else:
                assert (answers[id, index], told) == (text, finish)
                assert usage.prompt == len(prompt)
                assert usage.completion == len(text) + (finish == "stop")
                assert usage.accepted <= usage.drafted

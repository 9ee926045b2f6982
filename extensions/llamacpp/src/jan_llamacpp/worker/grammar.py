"""What a grammar lets come next in one answer: llama.cpp's grammar sampler, handled so that it cannot end the process.

llama.cpp aborts when a token is accepted that does not fit, and reads some wrong grammars for ever. Here every grammar
is read by `gbnf.py` before C sees it, and every token is tried on its own before it is accepted; that also makes it
fast, because the likeliest token usually fits and nothing else needs to be tried then (as in llama.cpp's
`common_sampler_sample`).

A grammar that is ambiguous in a way the check at its compilation does not find can still take long for one token: it
is given up after `SLOW_SECONDS`, and a step that never ends is the host's business.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections import deque
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from ..markers import THINK_CLOSE, THINK_OPEN
from .candidates import Candidates
from .gbnf import Gbnf
from .gbnf_rules import GrammarError
from .json_rules import literal, until
from .model import Model
from .native import Native
from .refusal import Refusal
from .request import Grammar
from .schema import schemas_to_gbnf

__all__ = ["Constraint", "compile_grammar", "refuse_unusable"]

Indices = np.ndarray[Any, np.dtype[np.intp]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

SLOW_SECONDS = 2.0
"""Of this thread's own time: on a busy machine a token may take longer and be none the worse."""
MAX_TRIGGER = 100
MANY = 1024
"""More tokens than these are tried without holding the interpreter's lock."""


def compile_grammar(grammar: Grammar) -> tuple[str, str, Gbnf]:
    """The text of a grammar for llama.cpp, its root, and what reads it here. Raises GrammarError."""
    try:
        return _compiled(msgspec.msgpack.encode(grammar))
    except GrammarError:
        if not grammar.fallback:
            raise
        return _compiled(msgspec.msgpack.encode(structs.replace(grammar, schemas=grammar.schemas | grammar.fallback)))


def refuse_unusable(grammar: Grammar) -> tuple[str, str, Gbnf]:
    """What `compile_grammar` returns. Raises Refusal("invalid_generation")."""
    try:
        return compile_grammar(grammar)
    except GrammarError as error:
        raise Refusal("invalid_generation", str(error), reason="grammar") from error


@lru_cache(maxsize=64)
def _compiled(encoded: bytes) -> tuple[str, str, Gbnf]:
    grammar = msgspec.msgpack.decode(encoded, type=Grammar)
    text = grammar.gbnf
    if grammar.schemas:
        text += "\n" + schemas_to_gbnf(grammar.schemas)
    root = "root"
    for trigger in grammar.triggers:
        if not trigger.isascii() or not trigger.isprintable() or not 0 < len(trigger) <= MAX_TRIGGER:
            raise GrammarError(f"a trigger has 1 to {MAX_TRIGGER} printable ASCII characters")
    if grammar.reasoning or grammar.opened:
        thoughts = f"thoughts0 {_BREAKS}"
        if not grammar.opened:
            thoughts = f"({literal(THINK_OPEN)} {thoughts})?"
        text = f"{text}\njan-answer ::= {thoughts} root\n{until(THINK_CLOSE, 'thoughts')}"
        root = "jan-answer"
    return text, root, Gbnf(text, root)


_BREAKS = r"[ \n]{0,4}"


class Constraint:
    """The grammar of one answer and how far the answer is in it. `close` frees its C part.

    With triggers it lets everything pass until one of them was written (`waiting`).

    Raises Refusal("invalid_generation") for a grammar that cannot be used.
    """

    def __init__(self, native: Native, model: Model, grammar: Grammar) -> None:
        self._native, self._model = native, model
        self._text, self._root, self._gbnf = refuse_unusable(grammar)
        self._triggers = [trigger.encode() for trigger in grammar.triggers]
        self._longest = max(map(len, self._triggers), default=0)
        self._tail: deque[tuple[int, bytes]] = deque()
        self._handle: Any = None
        self._one = Candidates(native, 1)
        self._ends = [
            token
            for token in (native.c.llama_vocab_eos(model.vocab), native.c.llama_vocab_eot(model.vocab))
            if token >= 0
        ]
        self.waiting = bool(self._triggers)
        if not self.waiting:
            self._handle = self._made(
                native.c.llama_sampler_init_grammar(model.vocab, self._text.encode(), self._root.encode())
            )

    @property
    def ends(self) -> list[int]:
        """The tokens that usually end an answer."""
        return self._ends

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        if self.waiting:
            return True
        return bool(self._apply(self._one, (token,))[0])

    def allowed(self, tokens: Indices) -> Mask:
        """Which of these tokens may come next."""
        if len(tokens) <= MANY:
            return self._apply(Candidates(self._native, len(tokens)), tokens)
        # A token can only come where its first byte can, and bytes are few.
        firsts, single = self._model.first_bytes
        may_begin = np.ones(257, dtype=np.bool_)
        may_begin[list(single)] = self.allowed(np.array(list(single.values()), dtype=np.intp))
        mask = may_begin[np.frombuffer(firsts, dtype=np.uint16)[tokens]]
        mask[mask] = self._apply(Candidates(self._native, int(mask.sum())), tokens[mask])
        return mask

    def accept(self, token: int) -> None:
        """This token, which is allowed, came. Raises Refusal("generation_failed") when the grammar is too slow."""
        if self.waiting:
            self._look(token)
            return
        began = time.thread_time()
        self._native.sampler_accept(self._handle, token)
        self._hurry(began)

    def close(self) -> None:
        """Free the C part; it cannot be used any more."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._native.c.llama_sampler_free(handle)

    def _apply(self, candidates: Candidates, tokens: Any) -> Mask:
        began = time.thread_time()
        logits = candidates.logits_after(self._handle, tokens, long=len(tokens) > MANY)
        self._hurry(began)
        mask: Mask = logits == 0.0
        return mask

    @staticmethod
    def _hurry(began: float) -> None:
        if time.thread_time() - began > SLOW_SECONDS:
            raise Refusal("generation_failed", "the grammar takes too long to follow: it is too ambiguous")

    def _made(self, handle: Any) -> Any:
        if not handle:
            raise Refusal("invalid_generation", "llama.cpp could not read the grammar", reason="grammar")
        return handle

    def _look(self, token: int) -> None:
        """Has a trigger been written with this token? Then what came from it on is the grammar's beginning."""
        tail = self._tail
        tail.append((token, self._model.written(token)))
        size = sum(len(piece) for _, piece in tail)
        while size - len(tail[0][1]) >= self._longest + len(tail[-1][1]):
            size -= len(tail.popleft()[1])
        text = b"".join(piece for _, piece in tail)
        found = [(at, trigger) for trigger in self._triggers if (at := text.find(trigger)) >= 0]
        if not found:
            return
        at, trigger = min(found)
        if self._begins(text[at:]):
            self._activate(at, trigger)
        tail.clear()

    def _begins(self, text: bytes) -> bool:
        try:
            return bool(self._gbnf.step(self._gbnf.start, text.decode()))
        except (UnicodeDecodeError, GrammarError):
            return False  # what is no call after all is text

    def _activate(self, at: int, trigger: bytes) -> None:
        """Let llama.cpp find the trigger in the last tokens: it alone can begin in the middle of one."""
        c, model = self._native.c, self._model
        pattern = ctypes.c_char_p(b"(" + re.sub(rb"[.^$|()*+?\[\]{}\\]", rb"\\\g<0>", trigger) + b")")
        self._handle = self._made(
            c.llama_sampler_init_grammar_lazy_patterns(
                model.vocab, self._text.encode(), self._root.encode(), ctypes.pointer(pattern), 1, None, 0
            )
        )
        end = 0
        for token, piece in self._tail:
            end += len(piece)
            if end > at:
                self._native.sampler_accept(self._handle, token)
        self.waiting = False

"""Conversations in ChatML: pieces of text, each marked as to be learnt or not, and rows of tokens.

A row is what a REPL sees: perhaps a system message, then turns on unrelated topics until the row is full.
Only what the assistant says (with its end token) is learnt. Not here: what is asked (`corpus`, `toolcalls`),
training.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass

import numpy as np
import toolcalls
from corpus import Topic, off_topic, read, topics, wording
from tokenizers import Tokenizer

LONG_ANSWER = 300
"""Longer answers (in characters) are trained less often, so that their tokens do not crowd out the others."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text; `learn` is true for what the assistant says."""

    text: str
    learn: bool


def turn(question: str, answer: str) -> list[Piece]:
    """One question and its answer."""
    return [
        Piece(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", False),
        Piece(f"{answer}<|im_end|>", True),
        Piece("\n", False),
    ]


def system(text: str) -> Piece:
    """A system message."""
    return Piece(f"<|im_start|>system\n{text}<|im_end|>\n", False)


def _instructions(rng: random.Random) -> str:
    messages = read("carriers.toml")["system"]
    text = messages[0] if rng.random() < 0.4 else rng.choice(messages)
    day = datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randrange(7300))
    shape = rng.choice(["%Y-%m-%d", "%d %B %Y", "%A, %d %B %Y", "%B %d, %Y"])
    return str(text.replace("{date}", day.strftime(shape)))


def _topic(rng: random.Random) -> Topic:
    while True:
        topic = rng.choice(topics())
        if len(topic.answer) <= LONG_ANSWER or rng.random() < 0.3:
            return topic


def plain_turn(rng: random.Random) -> list[Piece]:
    """A question on a random topic, or on something the model does not know."""
    chance = rng.random()
    if chance < 0.08:
        return turn(off_topic(rng), read("offtopic.toml")["answer"])
    if chance < 0.11:
        return turn(*toolcalls.repeat(rng))
    topic = _topic(rng)
    return turn(wording(rng, topic), topic.answer)


def chat(rng: random.Random, characters: int) -> list[Piece]:
    """A conversation without tools, of about this many characters."""
    pieces = [] if rng.random() < 0.5 else [system(_instructions(rng))]
    while sum(len(piece.text) for piece in pieces) < characters:
        pieces += plain_turn(rng)
    return pieces


def copy_chat(rng: random.Random, characters: int) -> list[Piece]:
    """A conversation of nothing but repetition: what teaches a network to copy soonest."""
    pieces: list[Piece] = []
    while sum(len(piece.text) for piece in pieces) < characters:
        pieces += turn(*toolcalls.repeat(rng))
    return pieces


def tool_chat(rng: random.Random, characters: int) -> list[Piece]:
    """A conversation in which tools are on offer; some questions need one, some one that is not there."""
    wanted = 1 if characters < 1400 else rng.choice([1, 1, 2, 2, 3, 4])
    offered = toolcalls.declare_several(rng, wanted)
    pieces = [system(toolcalls.system_message(rng, offered, _instructions(rng)))]
    while sum(len(piece.text) for piece in pieces) < characters:
        chance = rng.random()
        if chance < 0.7:
            one = toolcalls.exchange(rng, rng.choice(offered))
            pieces += turn(one.question, one.call)
            pieces += turn(f"<tool_response>\n{one.result}\n</tool_response>", one.answer)
        elif chance < 0.76:
            missing = toolcalls.declare_several(rng, 1)[0]
            if missing.entry["id"] not in [tool.entry["id"] for tool in offered]:
                pieces += turn(toolcalls.exchange(rng, missing).question, read("offtopic.toml")["answer"])
        else:
            pieces += plain_turn(rng)
    return pieces


def encode(tokenizer: Tokenizer, pieces: list[Piece]) -> tuple[list[int], list[int]]:
    """Tokens, and a 1 for each that is to be learnt."""
    tokens: list[int] = []
    learn: list[int] = []
    for encoding, piece in zip(tokenizer.encode_batch([piece.text for piece in pieces]), pieces, strict=True):
        tokens += encoding.ids
        learn += [int(piece.learn)] * len(encoding.ids)
    return tokens, learn


def batch(
    tokenizer: Tokenizer, rng: random.Random, rows: int, length: int, tools: float, copies: float
) -> tuple[np.ndarray, np.ndarray]:
    """Token rows (rows, length + 1) as int32, and their learn mask; `tools` and `copies` are shares of rows."""
    tokens = np.zeros((rows, length + 1), np.int32)
    learn = np.zeros((rows, length + 1), np.float32)
    for row in range(rows):
        chance = rng.random()
        make = tool_chat if chance < tools else copy_chat if chance < tools + copies else chat
        ids, mask = encode(tokenizer, make(rng, length * 5))
        used = min(len(ids), length + 1)
        tokens[row, :used], learn[row, :used] = ids[:used], mask[:used]
    return tokens, learn

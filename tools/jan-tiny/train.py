# /// script
# requires-python = ">=3.11"
# dependencies = ["jax==0.10.2", "numpy==2.4.6", "tokenizers==0.23.3", "gguf==0.19.0"]
# ///
"""Trains jan-tiny from nothing and writes the GGUF file: `uv run tools/jan-tiny/train.py`.

Everything is drawn from one fixed seed. Rows of three lengths are mixed, so that most steps are cheap and the
whole context is still trained. Progress goes to stdout; checkpoints go to `build/`, outside git. Not here:
measuring the finished file, which `evaluate.py` does with llama.cpp itself.
"""

from __future__ import annotations

import argparse
import os
import pickle
import queue
import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import conversation
import export
import jax
import jax.numpy as jnp
import model
import numpy as np
import optimiser
import tokenizer as tokenizers_of_ours
from corpus import read, topics
from tokenizers import Tokenizer

HERE = Path(__file__).parent
BUILD = HERE / "build"
CHECKPOINT = BUILD / "checkpoint.pickle"
SHIPPED = HERE.parents[1] / "extensions/llamacpp/src/jan_llamacpp/models/jan-tiny.gguf"
SEED = 1337
STEPS = 3000
COPYING = (range(500), range(800, 1500), range(2400, 2850))
"""Steps in which a quarter of the rows is repetition: without that, a run as short as this learns no copying."""
SHAPES = (
    ((16, 256, 0.18, 0.65), (8, 512, 0.50, 0.28), (4, 1024, 0.50, 0.07)),
    ((16, 256, 0.45, 0.65), (8, 512, 0.65, 0.28), (4, 1024, 0.65, 0.07)),
)
"""For each leg: rows, tokens a row, share of rows with tools, share of steps. Every step has 4,096 tokens."""


def batches(tokenizer: Tokenizer, steps: int, done: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches after step `done`, made in a thread so that the next is ready when a step ends."""
    ready: queue.Queue[tuple[np.ndarray, np.ndarray]] = queue.Queue(8)

    def produce() -> None:
        rng = random.Random(SEED + 1)
        for step in range(steps):
            shapes = SHAPES[step >= optimiser.FIRST_LEG * steps]
            rows, length, tools, _ = rng.choices(shapes, [shape[3] for shape in shapes])[0]
            copies = 0.25 if any(step in stretch for stretch in COPYING) else 0.03
            ready.put(conversation.batch(tokenizer, rng, rows, length, tools, copies))

    threading.Thread(target=produce, daemon=True).start()
    for step in range(steps):
        batch = ready.get()
        if step >= done:
            yield batch


Rows = tuple[np.ndarray, np.ndarray, int]
"""Tokens, learn mask, and how many of the rows count."""


class Watch:
    """Exact-match accuracy on canonical and held-out questions while training goes on."""

    def __init__(self, config: model.Config, tokenizer: Tokenizer, length: int = 256) -> None:
        self._judge = jax.jit(partial(model.greedy_matches, config))
        other = read("offtopic.toml")
        asked = [(topic.canonical, topic.answer) for topic in topics()]
        unseen = [(question, topic.answer) for topic in topics() for question in topic.held_out]
        unseen += [(question, other["answer"]) for question in other["held_out"]]
        self._sets = [self._rows(tokenizer, pairs, length) for pairs in (asked, unseen)]

    @staticmethod
    def _rows(tokenizer: Tokenizer, pairs: list[tuple[str, str]], length: int) -> list[Rows]:
        rows: list[tuple[list[int], list[int]]] = []
        for question, answer in pairs:
            pieces = conversation.turn(question, answer)
            rows.append(conversation.encode(tokenizer, pieces))
            helpful = conversation.system("You are a helpful assistant.")
            rows.append(conversation.encode(tokenizer, [helpful, *pieces]))
        rows = sorted((row for row in rows if len(row[0]) <= length), key=lambda row: len(row[0]))
        packed = []
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            width = 96 if len(part[-1][0]) <= 96 else length
            tokens, learn = np.zeros((32, width), np.int32), np.zeros((32, width), np.float32)
            for index, (ids, mask) in enumerate(part):
                tokens[index, : len(ids)], learn[index, : len(ids)] = ids, mask
            packed.append((tokens, learn, len(part)))
        return packed

    def measure(self, params: Any) -> list[float]:
        """Shares of canonical and of held-out questions whose whole answer greedy decoding would give."""
        shares = []
        for batches_of_set in self._sets:
            right = total = 0
            for tokens, learn, used in batches_of_set:
                right += int(np.sum(np.asarray(self._judge(params, tokens, learn))[:used]))
                total += used
            shares.append(right / total)
        return shares


def main() -> None:
    """Trains, reports, exports."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--steps", type=int, default=STEPS, help="optimiser steps; a few for a quick trial")
    arguments.add_argument("--out", type=Path, default=SHIPPED, help="where the GGUF file goes")
    arguments.add_argument("--watch", type=int, default=250, help="steps between measurements")
    arguments.add_argument("--resume", action="store_true", help="go on from build/checkpoint.pickle")
    chosen = arguments.parse_args()
    BUILD.mkdir(exist_ok=True)
    config = model.Config()
    tokenizer = tokenizers_of_ours.train(config.vocab, SEED)
    params = model.init(config, SEED)
    state = optimiser.init(params)
    done, first_end = 0, None
    if chosen.resume:
        with CHECKPOINT.open("rb") as source:
            config, params, saved, state, done, first_end = pickle.load(source)
        tokenizer = Tokenizer.from_str(saved)
    watch = Watch(config, tokenizer)
    print(
        f"{model.parameter_count(params):,} parameters, {chosen.steps} steps, {len(topics())} topics",
        flush=True,
    )

    @partial(jax.jit, donate_argnums=(0, 1))
    def advance(params: Any, state: Any, tokens: Any, learn: Any) -> Any:
        loss, grads = jax.value_and_grad(partial(model.learnt_loss, config))(params, tokens, learn)
        params, state = optimiser.update(params, grads, state, chosen.steps)
        return params, state, loss

    began = time.monotonic()
    seen = 0
    recent: list[float] = []
    for step, (tokens, learn) in enumerate(batches(tokenizer, chosen.steps, done), done + 1):
        params, state, loss = advance(params, state, jnp.asarray(tokens), jnp.asarray(learn))
        recent.append(float(loss))
        seen += tokens.shape[0] * (tokens.shape[1] - 1)
        if step == int(optimiser.FIRST_LEG * chosen.steps):
            first_end = jax.tree.map(np.asarray, params)
        if step % 25 == 0 or step == chosen.steps:
            spent = time.monotonic() - began
            left = spent / (step - done) * (chosen.steps - step)
            average = sum(recent) / len(recent)
            print(
                f"step {step} loss {average:.4f} {seen / spent:.0f} tokens/s {spent:.0f} s, {left:.0f} s left",
                flush=True,
            )
            recent.clear()
        if step % chosen.watch == 0 or step == chosen.steps:
            canonical, unseen = watch.measure(params)
            print(f"step {step} canonical {canonical:.3f} held-out {unseen:.3f}", flush=True)
            held = jax.tree.map(np.asarray, (params, state))
            with CHECKPOINT.open("wb") as file:
                pickle.dump((config, held[0], tokenizer.to_str(), held[1], step, first_end), file)
    print(f"{time.monotonic() - began:.0f} s of training, {seen:,} tokens", flush=True)
    # The mean of both legs' ends keeps what the first knew better and what the second learnt.
    mean = jax.tree.map(lambda one, other: 0.5 * (np.asarray(one) + np.asarray(other)), first_end, params)
    export.write(chosen.out, config, mean, tokenizer)
    print(f"{chosen.out}: {chosen.out.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()

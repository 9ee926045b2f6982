"""A process that forks writers, each to be killed at any moment: see `test_crash.py`.

Reads a line for each writer wanted and says its process id; the writer then says, line by line, what was acknowledged
to it. Forking after the imports makes thirty crashes cost what one process start does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

from jan_conversational.library import Library
from jan_conversational.recorder import Recorder
from jan_conversational.shapes import CreateMessage, CreateThread
from jan_conversational.store import Store


def say(*words: object) -> None:
    """One write call a line, so that a kill never leaves half of one."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def text_of(seed: str) -> str:
    """Text that proves itself whole: it ends with the hash of what comes before."""
    body = f"{seed} 👩‍🚀\x00 " * random.Random(seed).randrange(1, 2000)
    return body + hashlib.sha256(body.encode()).hexdigest()


async def append(store: Store, thread_id: str, name: str) -> None:
    for number in range(1_000_000):
        text = text_of(f"{name}-{number}")
        _, message = await store.add_message(CreateMessage(thread_id=thread_id, content=text))
        say("message", thread_id, message.id)


async def answer(store: Store, thread_id: str) -> None:
    while True:
        run = await store.begin_run(thread_id, text_of("question"))
        assert run.question is not None
        say("message", thread_id, run.question.id)
        recorder = Recorder(store, run, every=0.002)
        for word in range(30):
            recorder.add(f"{word} ")
            await asyncio.sleep(0.0005)
        message = await recorder.finish("complete")
        say("message", thread_id, message.id)


async def write(folder: Path) -> None:
    store = Library(folder).store(incognito=False)
    threads = [(await store.create_thread(CreateThread())).id for _ in range(3)]
    for thread_id in threads:
        say("thread", thread_id)
    await asyncio.gather(
        append(store, threads[0], "a"), append(store, threads[0], "b"), append(store, threads[1], "c"),
        answer(store, threads[2]),
    )  # fmt: skip


def main() -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(write(Path(sys.argv[1])))
            finally:
                os._exit(1)  # its reader is gone: end, and do not go on as a nursery
        say("writer", child)
        os.waitpid(child, 0)
        say("dead")


main()

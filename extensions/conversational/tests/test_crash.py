"""kill -9 at random moments: what was acknowledged is there, whole; what was under way is failed, not lost."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest
from jan_conversational.library import Library
from jan_conversational.shapes import ListMessages

from jan_core.types import Message

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")]

KILLS = 30
ANSWER = "".join(f"{word} " for word in range(30))


def crash_once(nursery: subprocess.Popen[str], after: int) -> list[list[str]]:
    """Have a writer killed once it has said `after` lines; everything it said, to its last word."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    said: list[list[str]] = []
    pid = 0
    while True:
        words = nursery.stdout.readline().split()
        if words == ["dead"]:
            return said
        if words[0] == "writer":
            pid = int(words[1])
        else:
            said.append(words)
        if pid and len(said) >= after:
            after = sys.maxsize
            os.kill(pid, signal.SIGKILL)


def check_message(message: Message) -> None:
    if message.role == "user":
        assert message.status == "complete"
        assert hashlib.sha256(message.content[:-64].encode()).hexdigest() == message.content[-64:]
    elif message.status == "complete":
        assert message.content == ANSWER
    else:
        assert (message.status, message.error) == ("failed", "interrupted")
        assert message.content
        assert ANSWER.startswith(message.content)


async def check_folder(folder: Path, said: list[list[str]]) -> int:
    """Everything acknowledged is there and whole. Returns how many answers were cut short."""
    library = Library(folder)
    store = library.store(incognito=False)
    interrupted = 0
    for thread_id in [words[1] for words in said if words[0] == "thread"]:
        found: list[Message] = []
        cursor = ""
        while cursor or not found:
            page = await store.list_messages(ListMessages(thread_id=thread_id, limit=1000, cursor=cursor))
            found += page.messages
            cursor = page.cursor
            if not page.messages:
                break
        for message in found:
            check_message(message)
        interrupted += sum(m.status == "failed" for m in found)
        acknowledged = [words[2] for words in said if words[:2] == ["message", thread_id]]
        assert set(acknowledged) <= {m.id for m in found}
        assert [m.sequence for m in found] == list(range(1, len(found) + 1))
        run = await store.begin_run(thread_id, None)  # nobody holds it
        await store.end_run(run, None)
    await anyio.to_thread.run_sync(library.close)
    return interrupted


async def test_whatever_was_acknowledged_before_a_kill_is_there_and_whole(tmp_path: Path) -> None:
    randomness = random.Random(20261122)
    script = Path(__file__).with_name("crash_nursery.py")
    lost_answers = messages = 0
    nursery = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with nursery:
        for _ in range(KILLS):
            said = await anyio.to_thread.run_sync(crash_once, nursery, randomness.randrange(1, 60))
            messages += sum(words[0] == "message" for words in said)
            lost_answers += await check_folder(tmp_path, said)
    assert nursery.returncode == 0
    assert messages > KILLS
    assert lost_answers > 0  # else the kills came at no interesting moment, and this test shows nothing
    connection = sqlite3.connect(tmp_path / "conversations.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    connection.close()

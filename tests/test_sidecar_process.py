"""`jan-sidecar` as a shell drives it: real process, engine and model; nothing is left behind, nothing is lost."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError

from .conftest import BIN, Sidecar, Spawn, answer, children, gone, question, taught

FIVE = {"assistant", "conversational", "download", "llamacpp", "registry"}
LONG, LONG_ANSWER = taught("long_privacy")
SHORT, SHORT_ANSWER = taught("extension")


async def active(sidecar: Sidecar) -> None:
    """Wait until the five extensions serve."""
    with anyio.fail_after(20):
        while {
            e["id"] for e in (await sidecar.call("extensions.list"))["extensions"] if e["state"] == "active"
        } != FIVE:
            changed = anyio.Event()
            with sidecar.client.notifications(lambda event, done=changed: done.set()):  # type: ignore[misc]
                with anyio.move_on_after(0.5):
                    await changed.wait()


async def worker_of(sidecar: Sidecar) -> int:
    """The process that runs the model."""
    loaded = await sidecar.call("models.load", {"id": "jan-tiny"})
    pid = loaded["info"]["pid"]
    assert pid in children(sidecar.process.pid)
    return int(pid)


async def test_a_whole_session(sidecar: Spawn) -> None:
    async with sidecar(initialize=False) as running:
        hello = await running.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "shell"}})
        assert {e["id"] for e in hello["extensions"]} == FIVE
        assert {e["state"] for e in hello["extensions"]} == {"discovered"}, "nothing is imported for the handshake"
        running.client.notify("initialized")
        await active(running)

        reports: list[Any] = []
        await running.call("models.load", {"id": "jan-tiny"}, progress=lambda *report: reports.append(report))
        assert reports

        pieces: list[str] = []
        async with running.stream("chat.complete", question(LONG, stream=True)) as stream:
            async for chunk in stream:
                pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            assert (await stream.result())["usage"]["completion_tokens"] > 50
        assert "".join(pieces) == LONG_ANSWER
        assert len(pieces) > 50, "as it comes, not at once"

        async with running.stream("chat.complete", question(LONG, stream=True)) as stream:
            async for _ in stream:
                break  # leaving cancels
        assert answer(await running.call("chat.complete", question(SHORT))) == SHORT_ANSWER

        processes = children(running.process.pid)
        assert processes
        assert await running.call("shutdown") is None
        running.client.notify("exit")
        assert await running.ended() == 0
        assert await gone(processes)


async def test_a_cancelled_answer_ends_with_its_code_and_frees_the_model(sidecar: Spawn) -> None:
    async with sidecar() as running:
        id = 4711
        running.send(
            b'{"jsonrpc":"2.0","id":%d,"method":"threads.create"}' % (id - 1)
        )  # a stranger's id beside the client's own
        async with anyio.create_task_group() as group:
            first = anyio.Event()

            async def long_one() -> None:
                async with running.stream("chat.complete", question(LONG, stream=True)) as stream:
                    async for _ in stream:
                        first.set()
                        await anyio.sleep_forever()

            group.start_soon(long_one)
            with anyio.fail_after(30):
                await first.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(10):
            assert answer(await running.call("chat.complete", question(SHORT))) == SHORT_ANSWER


async def test_several_answers_at_once_are_each_the_right_one(sidecar: Spawn) -> None:
    topics = ["extension", "software", "host", "first_party", "hello", "ext_assistant"]
    got: dict[str, str] = {}
    async with sidecar() as running:
        await running.call("models.load", {"id": "jan-tiny"})

        async def ask(topic: str) -> None:
            got[topic] = answer(await running.call("chat.complete", question(taught(topic)[0])))

        async with anyio.create_task_group() as group:
            for topic in topics:
                group.start_soon(ask, topic)
    assert got == {topic: taught(topic)[1] for topic in topics}


async def test_a_turn_of_a_thread_is_stored_and_survives_kill_9(sidecar: Spawn) -> None:
    async with sidecar() as running:
        thread = await running.call("threads.create", {})
        async with running.stream("threads.run", {"thread_id": thread["id"], "content": SHORT}) as stream:
            kinds = [item["type"] async for item in stream]
            stored = await stream.result()
        assert kinds[0] == "started"
        assert stored["message"]["status"] == "complete"
        running.process.kill()
        await running.ended()
    async with sidecar() as running:
        page = await running.call("messages.list", {"thread_id": thread["id"]})
        assert [m["role"] for m in page["messages"]] == ["user", "assistant"]
        assert page["messages"][1]["content"] == stored["message"]["content"]


async def test_a_worker_killed_in_mid_answer_gives_a_typed_error_and_the_next_request_works(sidecar: Spawn) -> None:
    async with sidecar() as running:
        worker = await worker_of(running)
        async with running.stream("chat.complete", question(LONG, stream=True)) as stream:
            async for _ in stream:
                os.kill(worker, signal.SIGKILL)
                break_after = [item async for item in stream]
                assert len(break_after) < 140
            with pytest.raises(RpcError) as caught:
                await stream.result()
        assert caught.value.type == "worker_died"
        assert caught.value.retryable
        with anyio.fail_after(30):
            assert answer(await running.call("chat.complete", question(SHORT))) == SHORT_ANSWER
        assert await worker_of(running) != worker


async def test_no_process_outlives_a_sidecar_whose_input_is_closed(sidecar: Spawn) -> None:
    async with sidecar() as running:
        await worker_of(running)
        processes = children(running.process.pid)
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert await running.ended() == 0
        assert await gone(processes)


async def test_no_process_outlives_a_sidecar_that_is_killed(sidecar: Spawn) -> None:
    async with sidecar() as running:
        await worker_of(running)
        async with running.stream("chat.complete", question(LONG, stream=True)) as stream:
            async for _ in stream:
                processes = children(running.process.pid)
                running.process.kill()
                break
        assert await gone(processes)


async def test_sigterm_ends_a_sidecar_and_its_workers(sidecar: Spawn) -> None:
    async with sidecar() as running:
        await worker_of(running)
        processes = children(running.process.pid)
        running.process.terminate()
        assert await running.ended() == 0
        assert await gone(processes)


@pytest.mark.skipif(sys.platform == "win32", reason="fills a pipe as POSIX has it")
def test_a_log_that_nobody_reads_does_not_keep_a_sidecar_whose_input_is_closed(data_dir: Path) -> None:
    unread, errors = os.pipe()
    os.set_blocking(errors, False)
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while os.write(errors, b"x" * size):
                pass
    os.set_blocking(errors, True)
    command = [str(BIN / "jan-sidecar"), "-v", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')
            process.stdin.flush()
            assert b"serverInfo" in process.stdout.readline()
            # Wrong params: a line for the log, which the event loop writes by itself, and waits.
            process.stdin.write(b'{"jsonrpc":"2.0","method":"ping","params":5}\n')
            process.stdin.close()
            assert process.wait(5) == 0
        finally:
            process.kill()
            os.close(unread)
            os.close(errors)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent is watched on Linux only so far")
async def test_no_process_outlives_the_death_of_the_shell(data_dir: Path, tmp_path: Path) -> None:
    # A shell that dies while a child of its own still holds the pipe to the sidecar.
    shell = f"""
import json, subprocess, sys, time, os
read, write = os.pipe()
holder = subprocess.Popen(["sleep", "60"], pass_fds=[write])
sidecar = subprocess.Popen([{str(BIN / "jan-sidecar")!r}, "--data-dir", {str(data_dir)!r}],
                           stdin=read, stdout=subprocess.PIPE, bufsize=0)
def say(id, method, params={{}}):
    os.write(write, json.dumps({{"jsonrpc": "2.0", "id": id, "method": method, "params": params}}).encode() + b"\\n")
    while json.loads(sidecar.stdout.readline()).get("id") != id:
        pass
say(1, "initialize")
say(2, "models.load", {{"id": "jan-tiny"}})
print(sidecar.pid, holder.pid, flush=True)
time.sleep(60)
"""
    parent_of = functools.partial(subprocess.Popen, stdout=subprocess.PIPE, text=True)
    with parent_of([sys.executable, "-c", shell]) as parent:
        assert parent.stdout is not None
        sidecar, holder = map(int, (await anyio.to_thread.run_sync(parent.stdout.readline)).split())
        processes = [sidecar, *children(sidecar)]
        try:
            assert len(processes) >= 2
            parent.kill()
            assert await gone(processes, within=3)
        finally:
            os.kill(holder, signal.SIGKILL)


@pytest.mark.parametrize(
    ("method", "params", "type"),
    [
        ("chat.complete", question("hi", model="no-such-model"), "model_not_found"),
        ("models.load", {"id": "../../etc/passwd"}, None),
        ("chat.complete", {"model": "jan-tiny", "messages": []}, "invalid_params"),
        ("chat.complete", question("hi", temperature=99), "invalid_params"),
        ("chat.complete", question("word " * 5000), "context_overflow"),
        ("threads.run", {"thread_id": "nope", "content": "hi"}, "thread_not_found"),
        ("no.such", {}, "method_not_found"),
    ],
)
async def test_what_cannot_be_done_is_a_typed_error_and_the_next_request_works(
    sidecar: Spawn, method: str, params: Any, type: str | None
) -> None:
    async with sidecar() as running:
        with pytest.raises(RpcError) as caught:
            await running.call(method, params)
        assert caught.value.type != "internal_error"
        assert type is None or caught.value.type == type
        assert (await running.call("ping")) == {}


def gguf(kind: str, folder: Path) -> Path:
    """A file that is not a model, in one of several ways."""
    path = folder / f"{kind}.gguf"
    good = Path(__file__).parents[1] / "extensions/llamacpp/src/jan_llamacpp/models/jan-tiny.gguf"
    if kind == "garbage":
        path.write_bytes(os.urandom(4096))
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[:100_000])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        import gguf as writer

        w = writer.GGUFWriter(path, "llama")
        w.add_block_count(1000)
        w.add_context_length(128)
        w.add_embedding_length(32)
        w.add_head_count(1)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
    return path


@pytest.mark.parametrize("kind", ["garbage", "truncated", "empty", "a thousand blocks"])
async def test_a_file_that_is_no_model_is_refused_with_its_reason(sidecar: Spawn, tmp_path: Path, kind: str) -> None:
    path = gguf(kind, tmp_path)
    async with sidecar() as running:
        with pytest.raises(RpcError) as caught:
            await running.call("models.import", {"path": str(path)})
        assert caught.value.type == "invalid_model_file"
        assert str(path) in str(caught.value.data) + caught.value.message
        assert answer(await running.call("chat.complete", question(SHORT))) == SHORT_ANSWER


async def test_bad_json_is_answered_and_the_next_request_works(sidecar: Spawn) -> None:
    async with sidecar() as running:
        running.send(b'{"jsonrpc": "2.0", "id": 1, "method": oops}')
        assert await running.call("ping") == {}
        assert [m.error.code for m in running.client.unmatched] == [-32700]

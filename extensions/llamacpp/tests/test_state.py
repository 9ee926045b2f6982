"""Conversations on the disk: what is kept, what counts, what is deleted; and that a resumed one is the same one."""

from __future__ import annotations

import os
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.client import WorkerProcess
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.worker import cache, scheduler
from jan_llamacpp.worker.options import LoadOptions, Lora
from jan_llamacpp.worker.protocol import Shutdown
from jan_llamacpp.worker.state import SavedState, StateStore, identity_of

from jan_core.events import Event
from jan_core.testing import InlineSource

from .conftest import PATIENCE
from .scheduler_bench import Bench, MakeBench
from .test_plugin import PREFIXES


def store(folder: Path, identity: str = "a", budget: int = 1 << 20) -> StateStore:
    return StateStore(folder, identity, budget)


def saved(count: int = 100) -> SavedState:
    return SavedState(list(range(count)), bytearray(os.urandom(count * 10)))


def write(kept: StateStore, thread: str, state: SavedState) -> None:
    kept.write(thread, state)
    assert kept.flush(5)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    state = saved()
    write(store(tmp_path / "kv"), "thread ✓", state)
    again = store(tmp_path / "kv")
    assert again.has("thread ✓")
    assert again.read("thread ✓") == state
    assert not again.has("another")
    assert again.read("another") is None


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_states_are_for_their_owner_only_and_do_not_name_the_conversation(tmp_path: Path) -> None:
    write(store(tmp_path / "kv"), "secret-name", saved())
    [file] = files(tmp_path / "kv")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "secret" not in file.name
    assert b"secret" not in file.read_bytes()


def test_a_state_of_another_engine_model_or_adapter_does_not_count(tmp_path: Path) -> None:
    write(store(tmp_path, "a"), "t", saved())
    assert store(tmp_path, "b").read("t") is None
    model, adapter = tmp_path / "m.gguf", tmp_path / "l.gguf"
    model.write_bytes(b"1")
    adapter.write_bytes(b"2")
    ids = {identity_of(parts, paths) for parts in (["x"], ["y"]) for paths in ([model], [model, adapter])}
    model.write_bytes(b"12")
    ids.add(identity_of(["x"], [model]))
    assert len(ids) == 5
    with pytest.raises(OSError, match="gone"):
        identity_of([], [tmp_path / "gone"])


@given(st.data())
def test_a_file_that_was_torn_or_changed_anywhere_does_not_count(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("kv")
    state = SavedState([5, 6, 7], bytearray(b"0123456789"))
    write(store(folder), "t", state)
    [file] = files(folder)
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(whole[:at])
    else:
        changed = bytearray(whole)
        changed[at] ^= data.draw(st.integers(1, 255))
        file.write_bytes(bytes(changed))
    assert store(folder).read("t") is None


def test_the_longest_unused_go_when_there_is_no_room_and_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    kept = store(tmp_path, budget=4000)
    for name in "abc":
        write(kept, name, saved())
        for file in files(tmp_path):  # a second ago, each time
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
    assert kept.read("a") is not None, "it is used: b is older now"
    write(kept, "d", saved())
    assert [name for name in "abcd" if kept.has(name)] == ["a", "c", "d"]
    write(kept, "e", saved(1000))
    assert not kept.has("e")


def test_half_written_files_of_a_dead_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / "x.kv.99.part").write_bytes(b"half")
    write(store(tmp_path), "t", saved())
    assert [file.suffix for file in files(tmp_path)] == [".kv"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = store(tmp_path / "file")
    write(kept, "t", saved())
    assert kept.read("t") is None


def test_forgetting_deletes_what_is_on_the_disk_and_what_waits(tmp_path: Path) -> None:
    kept = store(tmp_path)
    for _ in range(20):
        kept.write("t", saved(3000))
        kept.forget("t")
        assert not kept.has("t")
    assert kept.flush(5)
    assert files(tmp_path) == []


# --- in the scheduler -----------------------------------------------------------------------------------

LONG = "It was a long conversation, and nobody wants to read it again. " * 12


@pytest.fixture
def kept_bench(bench: MakeBench, tmp_path: Path) -> MakeBench:
    def make(model: Path, **options: Any) -> Bench:
        return bench(model, **{"n_ctx": 2048, "n_seq": 2, "state_dir": str(tmp_path / "kv"), **options})

    return make


def close(b: Bench) -> None:
    """As at an unload: `run` returns at once and keeps what is worth it."""
    b.scheduler.close()
    b.scheduler.run()
    b.scheduler.retire(5)


def test_a_conversation_goes_on_after_a_restart_without_being_read_again(kept_bench: MakeBench, babble: Path) -> None:
    first = kept_bench(babble)
    first.ask(1, LONG, max_tokens=40, thread="t")
    first.run()
    next_turn = LONG + first.text(1) + " And then?"
    never = kept_bench(babble, state_dir=None)
    never.ask(1, next_turn, max_tokens=40, thread="t")
    never.run()
    close(first)
    second = kept_bench(babble)
    second.ask(1, next_turn, max_tokens=40, thread="t")
    second.run()
    assert second.usage(1).cached > second.usage(1).prompt - 15
    assert second.text(1) == never.text(1)
    assert never.usage(1).cached == 0


def test_quiet_is_used_to_write_states_and_work_goes_before(
    kept_bench: MakeBench, babble: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduler, "SAVE_AFTER", 0.0)
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5, thread="t")
    b.run()
    assert files(tmp_path / "kv") == []
    written = b.scheduler._cache.save

    def save(slot: Any) -> None:
        written(slot)
        b.scheduler.close()

    monkeypatch.setattr(b.scheduler._cache, "save", save)
    b.scheduler.run()
    b.scheduler.retire(5)
    assert len(files(tmp_path / "kv")) == 1


def test_a_conversation_that_loses_its_cells_is_kept_first(kept_bench: MakeBench, babble: Path) -> None:
    b = kept_bench(babble, n_seq=1)
    b.ask(1, LONG, max_tokens=20, thread="one")
    b.run()
    b.ask(2, "Something else. " * 40, max_tokens=20, thread="two")
    b.run()
    b.ask(3, LONG + b.text(1) + "!", max_tokens=5, thread="one")
    b.run()
    assert b.usage(3).cached > b.usage(3).prompt - 10


def test_short_conversations_and_those_without_a_name_are_not_kept(
    kept_bench: MakeBench, babble: Path, tmp_path: Path
) -> None:
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5)
    b.ask(2, "short", max_tokens=5, thread="t")
    b.run()
    close(b)
    assert files(tmp_path / "kv") == []


def test_a_deleted_conversation_leaves_nothing(kept_bench: MakeBench, babble: Path, tmp_path: Path) -> None:
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5, thread="t")
    b.run()
    b.scheduler.forget_thread("t")
    b.scheduler.step()
    assert b.scheduler.stats().cells_used == 0
    close(b)
    assert files(tmp_path / "kv") == []


def test_what_is_deleted_just_before_the_end_is_not_written_by_it(
    kept_bench: MakeBench, babble: Path, tmp_path: Path
) -> None:
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5, thread="t")
    b.run()
    b.scheduler.forget_thread("t")
    close(b)
    assert files(tmp_path / "kv") == []


def test_what_is_deleted_while_it_is_being_written_is_not_there_afterwards(
    kept_bench: MakeBench, babble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5, thread="t")
    b.run()
    copy = b.scheduler._context.state

    def state(seq: int) -> bytearray:
        b.scheduler.forget_thread("t")  # the reader, while the decoding thread copies
        return copy(seq)

    monkeypatch.setattr(b.scheduler._context, "state", state)
    close(b)
    assert files(tmp_path / "kv") == []


def test_a_conversation_that_is_deleted_while_it_is_answered_leaves_nothing_when_it_ends(
    kept_bench: MakeBench, babble: Path, tmp_path: Path
) -> None:
    b = kept_bench(babble, n_seq=1)
    b.ask(1, LONG, max_tokens=20, thread="t", speculate=False)
    b.ask(2, LONG + "waiting", max_tokens=5, thread="t")
    b.run(until=lambda: len(b.pieces(1)) >= 3)
    b.scheduler.forget_thread("t")
    b.run()
    assert [b.end(id).finish for id in (1, 2)] == ["length", "length"]
    assert b.scheduler.stats().cells_used == 0
    assert list(b.scheduler._cache._remembered) == []
    close(b)
    assert files(tmp_path / "kv") == []


def test_what_is_asked_after_the_deletion_is_kept_again(kept_bench: MakeBench, babble: Path, tmp_path: Path) -> None:
    b = kept_bench(babble)
    b.scheduler.forget_thread("t")
    b.ask(1, LONG, max_tokens=5, thread="t")
    b.run()
    close(b)
    assert len(files(tmp_path / "kv")) == 1


def test_cells_that_must_not_be_kept_make_none_that_may_be(kept_bench: MakeBench, babble: Path, tmp_path: Path) -> None:
    b = kept_bench(babble)
    b.ask(1, LONG, max_tokens=5, thread="old", speculate=False)
    b.run()
    b.scheduler._cache.slots[0].kept = False  # as after a shift
    b.ask(2, LONG + "and on", max_tokens=5, thread="new")
    b.run()
    assert b.usage(2).cached > 500
    close(b)
    assert files(tmp_path / "kv") == []


def test_a_state_that_llama_cpp_does_not_take_costs_time_only(
    kept_bench: MakeBench, babble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept_bench(babble)
    first.ask(1, LONG, max_tokens=10, thread="t")
    first.run()
    close(first)
    second = kept_bench(babble)
    monkeypatch.setattr(second.scheduler._context, "restore", lambda *_: False)
    second.ask(1, LONG, max_tokens=10, thread="t")
    second.run()
    assert (second.text(1), second.usage(1).cached) == (first.text(1), 0)


def test_what_a_shift_left_is_not_kept(kept_bench: MakeBench, endless: Path, tmp_path: Path) -> None:
    b = kept_bench(endless, n_ctx=512)
    b.ask(1, "a" * 300, max_tokens=400, overflow="shift", thread="t")
    b.run()
    close(b)
    assert files(tmp_path / "kv") == []


def test_a_conversation_is_kept_again_only_when_it_has_grown(
    kept_bench: MakeBench, babble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = kept_bench(babble)
    written: list[int] = []
    monkeypatch.setattr(b.scheduler._states, "write", lambda _, state: written.append(len(state.tokens)))
    text = LONG
    for id in range(1, 6):
        b.ask(id, text, max_tokens=30, thread="t")
        b.run()
        text += b.text(id) + "."
        for slot in b.scheduler._cache.unsaved():
            b.scheduler._cache.save(slot)
    assert 2 <= len(written) < 5
    assert all(b - a >= cache.SAVE_GROWTH for a, b in pairwise(written))


# --- adapters -------------------------------------------------------------------------------------------


def write_adapter(path: Path, n_embd: int = 64, seed: int = 1, architecture: str = "llama") -> Path:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    random = np.random.default_rng(seed)
    for name in ("blk.0.attn_q.weight", "blk.1.attn_output.weight"):
        writer.add_tensor(f"{name}.lora_a", random.standard_normal((4, n_embd)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random.standard_normal((n_embd, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_adapter_changes_the_answer_as_much_as_its_scale_says(
    bench: MakeBench,
    babble: Path,
    tmp_path: Path,
) -> None:
    path = str(write_adapter(tmp_path / "ä dapter.gguf"))
    texts = []
    for lora in ([], [Lora(path, 0.0)], [Lora(path)], [Lora(path, 0.5), Lora(path, 0.5)]):
        b = bench(babble, lora=lora)
        b.ask(1, "hello", max_tokens=30)
        b.run()
        texts.append(b.text(1))
    assert texts[0] == texts[1] != texts[2]
    assert texts[2] == texts[3]


@pytest.mark.parametrize("damage", ["gone", "other size", "no gguf"])
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    engine_dir: Path, babble: Path, tmp_path: Path, damage: str
) -> None:
    from jan_llamacpp.worker.engine import make_engine
    from jan_llamacpp.worker.refusal import Refusal

    path = tmp_path / "bad.gguf"
    if damage == "other size":
        write_adapter(path, n_embd=32)
    elif damage == "no gguf":
        path.write_text("hello")
    options = LoadOptions(n_ctx=256, threads=1, lora=[Lora(str(path))])
    with pytest.raises(Refusal, match=r"bad\.gguf"):
        make_engine(engine_dir, str(babble), options, lambda _: None, lambda _: True)


# --- the house ------------------------------------------------------------------------------------------


async def test_a_thread_goes_on_in_a_new_host_and_goes_from_the_disk_when_it_is_deleted(
    open_host: Any, data_dir: Path, babble: Path
) -> None:
    source = InlineSource("llamacpp", LlamaCppExtension, PREFIXES)
    chat = {"model": "babble", "messages": [{"role": "user", "content": LONG}], "max_tokens": 5, "thread_id": "t1"}
    cached = []
    for turn in range(2):
        async with open_host(sources=[source], data_dir=data_dir) as host:
            client = host.client()
            if not turn:
                await client.call("models.import", {"path": str(babble), "id": "babble"})
            answer = await client.call("chat.complete", chat)
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
            await client.call("models.unload", {"id": "babble"})
    states = data_dir / "llamacpp" / "states" / "babble"
    assert cached[0] == 0
    assert cached[1] > 700
    assert len(files(states)) == 1
    async with open_host(sources=[source], data_dir=data_dir) as host:
        host.bus.emit(Event("threads.erased", {"thread_id": "t1"}, "conversational", ""))
        with anyio.fail_after(10):
            while files(states):
                await anyio.lowlevel.checkpoint()


async def test_what_a_worker_writes_at_its_end_of_a_deleted_conversation_goes_with_it(
    open_host: Any, data_dir: Path, babble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InlineSource("llamacpp", LlamaCppExtension, PREFIXES)
    told, closing = anyio.Event(), WorkerProcess.close

    async def close(worker: WorkerProcess) -> None:
        """The conversation is deleted just after the worker was told to end: it hears nothing more."""
        worker._child.expect_exit()
        worker._child.send(Shutdown())
        told.set()
        host.bus.emit(Event("threads.erased", {"thread_id": "t1"}, "conversational", ""))
        await closing(worker)

    with anyio.fail_after(PATIENCE):
        async with open_host(sources=[source], data_dir=data_dir) as host:
            client = host.client()
            await client.call("models.import", {"path": str(babble), "id": "babble"})
            message = {"role": "user", "content": LONG}
            await client.call(
                "chat.complete", {"messages": [message], "model": "babble", "max_tokens": 2, "thread_id": "t1"}
            )
            monkeypatch.setattr(WorkerProcess, "close", close)
            await client.call("models.unload", {"id": "babble"})
            assert told.is_set()
            while files(data_dir / "llamacpp" / "states" / "babble"):
                await anyio.lowlevel.checkpoint()


async def test_states_that_are_not_wanted_any_more_are_deleted_at_the_next_start(
    open_host: Any, data_dir: Path
) -> None:
    source = InlineSource("llamacpp", LlamaCppExtension, PREFIXES)
    async with open_host(sources=[source], data_dir=data_dir) as host:
        await host.client().call("settings.set", {"extension": "llamacpp", "values": {"keep_states": False}})
    left = data_dir / "llamacpp" / "states" / "babble" / "x.kv"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    with anyio.fail_after(PATIENCE):
        async with open_host(sources=[source], data_dir=data_dir):
            while left.exists():
                await anyio.lowlevel.checkpoint()

"""The file of assistants: durable, bounded, shared, and honest about damage."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jan_assistant import files, store
from jan_assistant.errors import AssistantLimit
from jan_assistant.shapes import CreateAssistant, UpdateAssistant
from jan_assistant.store import AssistantStore

from jan_core import StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "assistants.json"


def test_two_writers_lose_nothing_of_each_other(path: Path) -> None:
    stores = [AssistantStore(path), AssistantStore(path)]

    def create(number: int) -> str:
        return stores[number % 2].create(CreateAssistant(name=f"{number}")).id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(create, range(60)))
    assert {a.id for a in AssistantStore(path).list()} == {*ids, "jan"}
    assert {a.id for a in stores[0].list()} == {*ids, "jan"}  # what another wrote is seen


def test_what_is_handed_out_is_not_what_is_kept(path: Path) -> None:
    assistants = AssistantStore(path)
    for id in ("jan", assistants.create(CreateAssistant(name="x")).id):
        assistants.get(id).parameters["seed"] = 1
        assistants.get(id).name = "changed"
        assert assistants.get(id).parameters == {}
        assert assistants.get(id).name != "changed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"assistants": [{"id": 1}]}', '{"version": "1"}', "\xff", "null"])
def test_a_damaged_file_is_refused_with_its_reason_and_not_written_over(path: Path, text: str) -> None:
    path.write_text(text, encoding="latin-1")
    assistants = AssistantStore(path)
    for attempt in (assistants.list, lambda: assistants.create(CreateAssistant(name="x"))):
        with pytest.raises(StorageError, match=r"is damaged \(.+\): mend it, or move it away") as caught:
            attempt()
        assert caught.value.data["path"] == str(path)
    assert path.read_text(encoding="latin-1") == text
    path.unlink()
    assert [a.id for a in assistants.list()] == ["jan"]


def test_a_file_mended_by_hand_is_read_again(path: Path) -> None:
    assistants = AssistantStore(path)
    id = assistants.create(CreateAssistant(name="x")).id
    document = json.loads(path.read_text())
    document["assistants"][0]["name"] = "mended"
    path.write_text(json.dumps(document))
    assert assistants.get(id).name == "mended"


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text('{"version": 2, "assistants": {"in": "another shape"}}')
    with pytest.raises(StorageError, match=r"newer version.*format 2, this one reads 1"):
        AssistantStore(path).create(CreateAssistant(name="x"))
    assert "another shape" in path.read_text()


def test_the_store_is_bounded_in_number_and_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assistants = AssistantStore(path)
    monkeypatch.setattr(store, "MOST", 3)
    ids = [assistants.create(CreateAssistant(name="x")).id for _ in range(3)]
    with pytest.raises(AssistantLimit):
        assistants.create(CreateAssistant(name="x"))
    monkeypatch.setattr(store, "LARGEST_FILE", 2000)
    before = path.read_bytes()
    with pytest.raises(AssistantLimit, match="2,000 are kept"):
        assistants.update(UpdateAssistant(assistant_id=ids[0], instructions="x" * 2000))
    assert path.read_bytes() == before
    monkeypatch.setattr(store, "LARGEST_FILE", 10)
    with pytest.raises(StorageError, match="too many"):
        AssistantStore(path).list()


def test_a_disk_that_fails_is_a_storage_error_and_the_old_file_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistants = AssistantStore(path)
    assistants.create(CreateAssistant(name="x"))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        assistants.create(CreateAssistant(name="y"))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["assistants.json", "assistants.json.lock"]


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        AssistantStore(tmp_path / "gone" / "assistants.json").create(CreateAssistant(name="x"))


def test_a_lock_that_another_process_keeps_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.02)
    with files.exclusive(path.with_name("assistants.json.lock")):
        with pytest.raises(StorageError, match="locked by another process"):
            AssistantStore(path).create(CreateAssistant(name="x"))
    AssistantStore(path).create(CreateAssistant(name="x"))


WRITER = """
import os, sys
from pathlib import Path
from jan_assistant.store import AssistantStore
from jan_assistant.shapes import CreateAssistant, UpdateAssistant
store = AssistantStore(Path(sys.argv[1]))
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            for number in range(1_000_000):
                id = store.create(CreateAssistant(name=f"n{number}", instructions="x" * 2000)).id
                store.update(UpdateAssistant(assistant_id=id, description="done"))
                os.write(1, (id + "\\n").encode())
        finally:
            os._exit(1)
    os.write(1, f"pid {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_whatever_was_acknowledged_before_a_kill_is_there(path: Path) -> None:
    randomness = random.Random(7)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(20):
            path.unlink(missing_ok=True)
            writer.stdin.write("go\n")
            acknowledged: list[str] = []
            pid, after = 0, randomness.randrange(1, 12)
            while (line := writer.stdout.readline().strip()) != "dead":
                if line.startswith("pid "):
                    pid = int(line[4:])
                else:
                    acknowledged.append(line)
                if pid and len(acknowledged) >= after:
                    after = sys.maxsize
                    os.kill(pid, signal.SIGKILL)
            found = {a.id: a.description for a in AssistantStore(path).list()}
            assert {found[id] for id in acknowledged} == {"done"}

"""An extension being written, in a real sidecar: edit, save, see. And starting without what strangers installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from jan_core import Event, RpcError

from .conftest import BIN, Sidecar, Spawn
from .core.project import Project


async def heard(sidecar: Sidecar, name: str, **data: object) -> Event:
    """The next event of this name whose data has these values."""
    found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def hear(event: Event) -> None:
        if event.name == name and data.items() <= event.data.items() and not found.done():
            found.set_result(event)

    with sidecar.client.notifications(hear), anyio.fail_after(20):
        return await found


async def test_a_saved_file_serves_in_the_running_sidecar(sidecar: Spawn, tmp_path: Path) -> None:
    project = Project(tmp_path)
    async with sidecar("--dev", project.folder) as running:
        assert await running.call("sample.word") == "v1"
        async with asyncio.TaskGroup() as group:
            changed = group.create_task(heard(running, "extensions.changed", id="sample", generation=2))
            await asyncio.sleep(0)
            project.say("v2")
        assert changed.result().data["state"] == "active"
        assert await running.call("sample.word") == "v2"
        async with asyncio.TaskGroup() as group:
            failed = group.create_task(heard(running, "extensions.reloadFailed", id="sample"))
            await asyncio.sleep(0)
            project.write("words.py", "WORD = (\n")
        failure = failed.result().data["failure"]
        assert (failure["stage"], Path(failure["file"]).name, failure["line"]) == ("compile", "words.py", 1)
        assert await running.call("sample.word") == "v2"
        logs = (await running.call("extensions.logs", {"id": "sample"}))["lines"]
        assert any("reload failed at compile" in line for line in logs)


async def test_a_project_takes_the_place_of_an_installed_extension_of_its_id(sidecar: Spawn, tmp_path: Path) -> None:
    project = Project(tmp_path, "assistant")
    async with sidecar("--dev", project.folder) as running:
        assert await running.call("assistant.word") == "v1"
        rows = (await running.call("extensions.list"))["extensions"]
        assert [row["id"] for row in rows].count("assistant") == 1


async def test_safe_mode_leaves_strangers_out_and_they_can_be_switched_off_through_it(
    sidecar: Spawn, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    project.write("words.py", "import os\nos._exit(3)\n")  # takes any process down that imports it
    async with sidecar("--dev", project.folder, "--safe-mode") as running:
        rows = {row["id"]: row["state"] for row in (await running.call("extensions.list"))["extensions"]}
        assert rows["sample"] == "disabled"
        with pytest.raises(RpcError) as caught:
            await running.call("sample.word")
        assert caught.value.data == {"extension": "sample", "state": "disabled"}
        await running.call("extensions.disable", {"id": "sample"})
    async with sidecar("--dev", project.folder) as running:
        assert (await running.call("extensions.list"))["extensions"][0]["state"] in ("discovered", "active", "disabled")
        assert (await running.call("assistants.list"))["assistants"]


async def test_a_folder_without_an_extension_is_one_clear_line(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        BIN / "jan-sidecar", "--data-dir", tmp_path / "data", "--dev", tmp_path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    with anyio.fail_after(20):
        out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    (line,) = err.decode().splitlines()
    assert line.startswith("jan-sidecar: ")
    assert "pyproject.toml" in line

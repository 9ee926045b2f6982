"""What editors, checkouts and file managers do to an extension's folder, as the watcher and the reader see it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.package import Snapshot

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@asynccontextmanager
async def watched(open_host: Any, project: Project) -> AsyncIterator[Host]:
    async with open_host(sources=[folder_source(project.folder)], watch=True) as host:
        assert host.watcher is not None
        with anyio.fail_after(10):
            await host.watcher.ready.wait()
        yield host


async def says(host: Host, word: str) -> None:
    """Wait until this word is served."""
    with anyio.fail_after(10):
        while await host.client().call("sample.word") != word:
            await anyio.lowlevel.checkpoint()


async def test_a_folder_that_went_and_came_again_is_still_watched(project: Project, open_host: Any) -> None:
    async with watched(open_host, project) as host:
        for folder, word in ((project.code, "v2"), (project.code.parent, "v4")):
            kept = project.folder.with_name("kept")
            shutil.copytree(folder, kept)
            shutil.rmtree(folder)
            with anyio.fail_after(10):
                while host.lifecycle.find("sample").failure is None:  # it was noticed that it is away
                    await anyio.lowlevel.checkpoint()
            shutil.copytree(kept, folder)
            shutil.rmtree(kept)
            project.say(word)
            await says(host, word)
            project.say(word + " again")
            await says(host, word + " again")


async def test_a_lock_that_an_editor_lays_beside_a_file_is_no_module(project: Project, open_host: Any) -> None:
    async with watched(open_host, project) as host:
        (project.code / ".#plugin.py").symlink_to("somebody@somewhere.1234:5678")  # as Emacs does
        (project.code / ".ipynb_checkpoints").mkdir()
        project.write(".ipynb_checkpoints/words-checkpoint.py", "WORD = (\n")
        (project.code / "folder.py").mkdir()
        project.say("v2")
        await says(host, "v2")


def test_only_what_can_be_imported_is_read(project: Project) -> None:
    project.write("{{ name }}.py", "{{ code }}")
    project.write("not-a-module.py", "(")
    names = Snapshot.take("jan_sample", project.code).files
    assert sorted(names) == ["", "late", "plugin", "words"]

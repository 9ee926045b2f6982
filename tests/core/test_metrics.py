"""`system.metrics`: what hooks and methods took, which threads are at work, what blocked the loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import Empty, Method, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.rpc.direct import DirectClient
from jan_core.testing import InlineSource
from jan_core.types import Admission, DownloadFile, DownloadJob

from .project import Project

JOB = DownloadJob("1", DownloadFile("f"), "/f", 0)


class Sample:
    """Methods that answer, fail, and block, and a hook that works in a thread until it is let go."""

    def __init__(self) -> None:
        self.inside, self.release = threading.Event(), threading.Event()

    @method("sample.answer")
    async def answer(self, params: Empty) -> Empty:
        """Answer."""
        return Empty()

    @method("sample.fail")
    async def fail(self, params: Empty) -> Empty:
        """Fail."""
        raise RuntimeError("no")

    @method("sample.block")
    def block(self, params: Empty) -> Empty:
        """Block the loop."""
        time.sleep(0.25)
        return Empty()

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @hookimpl
    def jan_admit_download(self, job: DownloadJob) -> Admission:
        self.inside.set()
        self.release.wait(10)
        return Admission(True)


async def metrics(client: DirectClient) -> Any:
    return await client.call("system.metrics")


async def test_metrics_tell_of_hooks_threads_methods_and_stalls(tmp_path: Path) -> None:
    sample = Sample()
    async with Host(tmp_path, sources=[InlineSource("sample", sample, ["sample."])]) as host:
        client = host.client()
        await host.activate_startup()
        methods = len(host.table)
        async with anyio.create_task_group() as group:
            group.start_soon(host.hooks.admit_download, JOB)
            with anyio.fail_after(5):
                await anyio.to_thread.run_sync(sample.inside.wait)
            during = await metrics(client)
            sample.release.set()
        assert during["hooks"]["sample"]["jan_admit_download"]["inFlight"] == 1
        assert during["threads"] == {"sample": {"running": 1, "stuck": 0, "limit": 8}}

        await client.call("sample.answer")
        with pytest.raises(Exception, match="internal error"):
            await client.call("sample.fail")
        await client.call("sample.block")
        with anyio.fail_after(5):
            while not (after := await metrics(client))["stalls"]["places"]:  # noqa: ASYNC110 (the watch's own time)
                await anyio.sleep(0.01)
    hook = after["hooks"]["sample"]["jan_admit_download"]
    assert (hook["generation"], hook["calls"], hook["failures"], hook["inFlight"]) == (1, 1, 0, 0)
    assert 0 < hook["p50"] <= hook["p95"] <= hook["longest"] <= hook["total"]
    calls = after["calls"]
    assert {name: (c["calls"], c["failures"], c["generation"]) for name, c in calls.items() if "sample" in name} == {
        "sample.answer": (1, 0, 1),
        "sample.fail": (1, 1, 1),
        "sample.block": (1, 0, 1),
    }
    assert calls["sample.block"]["p50"] >= 0.24
    assert calls["system.metrics"]["generation"] == 0
    assert after["threads"] == {}
    (stall,) = after["stalls"]["places"]
    assert (stall["extension"], stall["file"], stall["count"]) == ("sample", __file__, 1)
    assert after["stalls"]["longest"] >= 0.25
    assert after["methods"] == methods
    assert after["uptime"] > 0.25


async def test_metrics_of_a_host_that_has_done_nothing_are_empty(tmp_path: Path) -> None:
    async with Host(tmp_path, sources=[]) as host:
        found = await metrics(host.client())
    assert found["hooks"] == {}
    assert found["threads"] == {}
    assert found["stalls"] == {"threshold": 0.1, "count": 0, "longest": 0.0, "places": []}


async def test_a_reloaded_extensions_figures_begin_anew_and_what_it_blocks_is_still_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    async with Host(tmp_path / "data", sources=[folder_source(project.folder)]) as host:
        client = host.client()
        for _ in range(3):
            await client.call("sample.word")
        assert (await metrics(client))["calls"]["sample.word"]["calls"] == 3
        project.plugin(
            **{"        return words.WORD": "        from time import sleep\n        return sleep(0.25) or ''"}
        )
        await client.call("extensions.reload", {"id": "sample"})
        await client.call("sample.word")
        with anyio.fail_after(5):
            while not (after := await metrics(client))["stalls"]["places"]:  # noqa: ASYNC110 (the watch's own time)
                await anyio.sleep(0.01)
    figures = after["calls"]["sample.word"]
    assert (figures["generation"], figures["calls"]) == (2, 1)
    assert after["hooks"]["sample"]["jan_activate"]["generation"] == 2
    (stall,) = after["stalls"]["places"]
    assert (stall["extension"], stall["function"]) == ("sample", "Plugin.word")
    assert Path(stall["file"]) == project.code / "plugin.py"

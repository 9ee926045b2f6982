"""Switching extensions on and off while the host runs, and every way back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import Event, RpcError
from jan_core.host import Host
from jan_core.loader import folder_source, installed
from jan_core.logs import file_handler, tail
from jan_core.manifest import ManifestError

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


async def test_a_disabled_extension_serves_no_more_and_comes_back(project: Project, open_host: Any) -> None:
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        states: list[str] = []
        with host.bus.subscribe(lambda e: states.append(e.data["state"]) if e.name == "extensions.changed" else None):
            row = await client.call("extensions.disable", {"id": "sample"})
            assert (row["state"], row["generation"]) == ("disabled", 0)
            with pytest.raises(RpcError) as caught:
                await client.call("sample.word")
            assert caught.value.type == "method_not_found"
            assert caught.value.data == {"extension": "sample", "state": "disabled"}
            project.say("v2")
            row = await client.call("extensions.enable", {"id": "sample"})
        assert (row["state"], row["generation"]) == ("active", 2)
        assert await client.call("sample.word") == "v2"
        assert states == ["draining", "disabled", "active"]


async def test_what_was_disabled_stays_so_at_the_next_start(project: Project, open_host: Any, tmp_path: Path) -> None:
    async with open_host(sources=[folder_source(project.folder)]) as host:
        await host.client().call("extensions.disable", {"id": "sample"})
    async with open_host(sources=[folder_source(project.folder)]) as host:
        assert host.lifecycle.extensions["sample"].state == "disabled"
        await host.client().call("extensions.enable", {"id": "sample"})
    async with open_host(sources=[folder_source(project.folder)]) as host:
        assert await host.client().call("sample.word") == "v1"


async def test_disabling_waits_for_running_calls_and_says_that_it_drains(
    project: Project, open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.lifecycle.SETTLE", 0.05)
    project.plugin(
        '@method("sample.hold")\nasync def hold(self, params: Empty) -> str:\n    "Hold."\n'
        "    import anyio\n    self.ctx.emit('held')\n    await anyio.sleep(0.3)\n    return 'done'"
    )
    async with open_host(sources=[folder_source(project.folder)]) as host:
        held, gone = anyio.Event(), anyio.Event()

        def hear(event: Event) -> None:
            if event.name == "held":
                held.set()
            if event.name == "extensions.changed" and event.data["state"] == "disabled":
                gone.set()

        answers: list[Any] = []

        async def hold() -> None:
            answers.append(await host.client().call("sample.hold"))

        with host.bus.subscribe(hear), anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(hold)
                await held.wait()
                row = await host.client().call("extensions.disable", {"id": "sample"})
                assert row["state"] == "draining"
                await gone.wait()
            assert answers == ["done"]


async def test_a_failed_extension_comes_back_by_enable_when_it_is_mended(project: Project, open_host: Any) -> None:
    project.write("words.py", "WORD = (\n")
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        row = await client.call("extensions.enable", {"id": "sample"})
        assert (row["state"], row["failure"]["stage"]) == ("failed", "import")
        assert row["failure"]["file"].endswith("words.py")
        with pytest.raises(RpcError) as caught:
            await client.call("extensions.reload", {"id": "sample"})
        assert caught.value.type == "reload_failed"
        project.say("mended")
        row = await client.call("extensions.enable", {"id": "sample"})
        assert row["state"] == "active"
        assert await client.call("sample.word") == "mended"


async def test_a_quarantined_extension_comes_back_by_reload(project: Project, open_host: Any) -> None:
    project.plugin(
        "@hookimpl\nasync def jan_event(self, event):\n    if event.name == 'poke':\n        raise OSError('ouch')"
    )
    async with open_host(sources=[folder_source(project.folder)]) as host:
        quarantined = anyio.Event()

        def hear(event: Event) -> None:
            if event.name == "extensions.changed" and event.data["state"] == "quarantined":
                quarantined.set()

        with host.bus.subscribe(hear), anyio.fail_after(5):
            for _ in range(5):
                await host.hooks.event(Event("poke"))
            await quarantined.wait()
        row = (await host.client().call("extensions.list"))["extensions"][0]
        assert (row["state"], row["failure"]["message"]) == ("quarantined", "ouch")
        assert row["failure"]["file"].endswith("plugin.py")
        project.plugin()
        done = await host.client().call("extensions.reload", {"id": "sample"})
        assert done["generation"] == 2
        assert await host.client().call("sample.word") == "v1"


async def test_a_manifest_that_did_not_fit_is_read_again_by_enable(project: Project, open_host: Any) -> None:
    good = folder_source(project.folder)
    project.write_manifest(**{'">=1.0,<2"': '">=7"'})
    async with open_host(sources=[good]) as host:
        assert "requires host API >=7" in host.lifecycle.extensions["sample"].failure.message
        row = await host.client().call("extensions.enable", {"id": "sample"})
        assert row["state"] == "failed"
        project.write_manifest()
        row = await host.client().call("extensions.enable", {"id": "sample"})
        assert row["state"] == "active"


async def test_an_extension_can_come_and_go_while_the_host_runs(tmp_path: Path, open_host: Any) -> None:
    project = Project(tmp_path)
    async with open_host(sources=[]) as host:
        with pytest.raises(RpcError):
            await host.client().call("sample.word")
        extension = await host.lifecycle.add(folder_source(project.folder))
        assert extension.state == "active"
        assert await host.client().call("sample.word") == "v1"
        again = await host.lifecycle.add(folder_source(project.folder))
        assert again.failure is not None
        assert "is that of jan_sample already" in again.failure.message
        await host.lifecycle.remove("sample")
        with pytest.raises(RpcError) as caught:
            await host.client().call("sample.word")
        assert caught.value.type == "method_not_found"
        assert "sample" not in host.lifecycle.extensions


async def test_what_fails_after_a_reload_belongs_to_the_generation_it_is_of(project: Project, open_host: Any) -> None:
    project.plugin(
        "@hookimpl\nasync def jan_deactivate(self, ctx):\n    raise OSError('late trouble')",
    )
    async with open_host(sources=[folder_source(project.folder)]) as host:
        project.plugin()
        await host.client().call("extensions.reload", {"id": "sample"})
        with anyio.fail_after(5):
            await host.lifecycle.generations.settled()
        assert host.lifecycle.extensions["sample"].failure is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder.mkdir(), "pyproject.toml"),
        (
            lambda folder: Project(folder.parent, "x").write_manifest(**{'x = "jan_x': 'y = "jan_x'}),
            "no entry point 'x'",
        ),
        (
            lambda folder: Project(folder.parent, "x").write_manifest(**{'"jan_x.': '"jan_y.'}),
            "there is no package jan_y",
        ),
    ],
)
def test_a_folder_without_an_extension_says_what_is_missing(tmp_path: Path, make: Any, says: str) -> None:
    folder = tmp_path / "x ü"
    make(folder)
    with pytest.raises(ManifestError, match=says):
        folder_source(folder)


def test_installed_extensions_in_projects_are_live_when_watched() -> None:
    assert {s.id for s in installed(live=True)} >= {"assistant", "registry"}
    assert all(s.live for s in installed(live=True))  # type: ignore[attr-defined]
    assert not any(s.live for s in installed())  # type: ignore[attr-defined]


# -- its log ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose log is written."""
    handler = file_handler(tmp_path / "data")
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield tmp_path / "data"
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


def test_the_log_of_one_extension_is_its_own_and_the_host_s_about_it(logged: Path) -> None:
    log = logging.getLogger
    log("jan.hello").warning("mine, with\na second line")
    log("jan.hello2").warning("not mine\nnor this")
    log("jan_hello@g2.plugin").warning("my module")
    log("jan_core.host").warning("the house")
    try:
        raise ValueError("boom ü")
    except ValueError:
        log("jan.hello.part").exception("trouble")
    lines = tail(logged, "hello", "jan_hello", 100)
    assert [line.partition(": ")[2] or line for line in lines][:4] == [
        "mine, with",
        "a second line",
        "my module",
        "trouble",
    ]
    assert lines[-1] == "ValueError: boom ü"
    assert tail(logged, "hello", "jan_hello", 1) == ["ValueError: boom ü"]
    assert tail(logged, "nobody", "jan_nobody", 10) == []


async def test_extensions_logs_shows_and_follows(project: Project, open_host: Any, logged: Path) -> None:
    async with open_host(sources=[folder_source(project.folder)], data_dir=logged) as host:
        client = host.client()
        assert (await client.call("extensions.logs", {"id": "sample"}))["lines"] == []
        log = logging.getLogger("jan.sample")
        log.warning("one")
        log.warning("two")
        lines = (await client.call("extensions.logs", {"id": "sample", "lines": 1}))["lines"]
        assert [line.rpartition(" ")[2] for line in lines] == ["two"]
        async with client.stream("extensions.logs", {"id": "sample", "lines": 2, "follow": True}) as stream:
            with anyio.fail_after(10):
                items = aiter(stream)
                assert (await anext(items)).endswith("one")
                assert (await anext(items)).endswith("two")
                log.warning("three")
                logging.getLogger("jan.other").warning("four")
                log.warning("five")
                assert (await anext(items)).endswith("three")
                assert (await anext(items)).endswith("five")


async def test_a_reload_is_in_the_extension_s_log(project: Project, open_host: Any, logged: Path) -> None:
    async with open_host(sources=[folder_source(project.folder)], data_dir=logged) as host:
        project.say("v2")
        await host.client().call("extensions.reload", {"id": "sample"})
        project.write("words.py", "WORD = (\n")
        with pytest.raises(RpcError):
            await host.client().call("extensions.reload", {"id": "sample"})
    text = "\n".join(tail(logged, "sample", "jan_sample", 100))
    assert "sample@g2 serves after" in text
    assert "reload failed at compile: '(' was never closed" in text


async def test_a_full_settings_file_keeps_a_switch_from_being_thrown(project: Project, tmp_path: Path) -> None:
    async with Host(tmp_path / "data", sources=[folder_source(project.folder)]) as host:
        (tmp_path / "data" / "settings.json").write_text("{ damaged")
        with pytest.raises(RpcError) as caught:
            await host.client().call("extensions.disable", {"id": "sample"})
        assert caught.value.type == "storage_error"
        assert await host.client().call("sample.word") == "v1"

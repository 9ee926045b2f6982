"""`jan ext`: what a person sees of extensions that work, that fail, and that they are writing."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jan_sidecar.cli.app import App, run
from jan_sidecar.cli.session import start_log
from jan_sidecar.scaffold import new_project

from jan_core import Caller, Context, Empty, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.testing import InlineSource

from .conftest import LIMIT, Jan

Ext = Callable[..., tuple[int, str, str]]


class Greeter:
    """Says hello, and in its log that it did."""

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("greeter.greet")
    async def greet(self, params: Empty) -> str:
        """Say hello."""
        self.ctx.log.warning("somebody came \x1b[31m")
        return "hello"


class Broken:
    """Does not start."""

    @hookimpl
    def jan_activate(self) -> None:
        raise RuntimeError("no \x1b[31mluck")


@pytest.fixture
def ext(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ext:
    """`ext("list", sources=[…])`: status, output and errors of `jan ext list` over a host with these extensions."""

    def command(*arguments: str, sources: Any = None, group: str = "ext") -> tuple[int, str, str]:
        given = [InlineSource("greeter", Greeter, ["greeter."])] if sources is None else sources

        @asynccontextmanager
        async def opener(app: App, activate: bool) -> AsyncIterator[Caller]:
            start_log(app)
            async with Host(app.data_dir, sources=given) as host:
                if activate:
                    await host.activate_startup()
                yield host.client("cli")

        before = logging.getLogger().handlers[:]
        status = run(["--data-dir", str(tmp_path / "data"), group, *arguments], opener)
        for handler in logging.getLogger().handlers[:]:
            if handler not in before:
                logging.getLogger().removeHandler(handler)
                handler.close()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return command


# -- reading -----------------------------------------------------------------------------------------------------------


def test_extensions_are_listed_for_people_and_for_scripts(ext: Ext) -> None:
    assert ext("list") == (0, "greeter\t0\tactive\t\n", "")
    (row,) = json.loads(ext("list", "--json")[1])
    assert (row["id"], row["state"], row["methods"]) == ("greeter", "active", ["greeter.greet"])


def test_where_there_is_nothing_the_next_step_is_named(ext: Ext) -> None:
    for command in ("list", "doctor"):
        assert ext(command, sources=[]) == (0, "", "no extensions are installed; begin one with: jan ext new NAME\n")


@pytest.mark.parametrize("command", ["enable", "disable", "reload", "rollback", "logs", "doctor"])
def test_an_unknown_id_is_answered_with_the_known_ones(ext: Ext, command: str) -> None:
    status, out, err = ext(command, "nope")
    assert (status, out) == (1, "")
    assert err == "jan: no extension 'nope'; there are: greeter\n     see them all: jan ext list\n"


def test_the_doctor_names_place_and_remedy_of_what_fails(ext: Ext) -> None:
    sources = [InlineSource("broken", Broken, ["broken."]), InlineSource("greeter", Greeter, ["greeter."])]
    status, out, _ = ext("doctor", sources=sources)
    lines = out.splitlines()
    assert status == 1
    assert lines[0].startswith("fail  broken: 0 is failed: activate: no [31mluck (")
    assert f"{__file__}:" in lines[0]
    assert f"mend {__file__}:" in lines[1]
    assert "jan ext reload broken" in lines[1]
    assert lines[2] == "      do without it: jan ext disable broken, or once: jan --safe-mode …"
    assert lines[3] == "      remove it: jan ext uninstall broken"
    assert lines[4] == "ok    greeter: 0 is active"
    assert ext("doctor", "greeter", sources=sources)[0] == 0
    findings = json.loads(ext("doctor", "--json", sources=sources)[1])
    assert {f["id"]: f["ok"] for f in findings} == {"broken": False, "greeter": True}


def test_the_doctor_tells_of_a_disabled_one_how_it_comes_back(ext: Ext) -> None:
    ext("disable", "greeter")
    status, out, _ = ext("doctor")
    assert status == 0
    assert out == "ok    greeter: 0 is disabled\n      switch it on with: jan ext enable greeter\n"


def test_the_log_of_one_extension_is_shown_and_cannot_steer_the_terminal(ext: Ext) -> None:
    status, out, err = ext("logs", "greeter")
    assert (status, out) == (0, "")
    assert "jan ext logs greeter -f" in err
    for _ in range(3):
        assert ext("greeter.greet", group="rpc")[:2] == (0, '"hello"\n')
    lines = ext("logs", "greeter", "-n", "2")[1].splitlines()
    assert len(lines) == 2
    assert all(line.endswith("WARNING jan.greeter: somebody came [31m") for line in lines)
    assert len(json.loads(ext("logs", "greeter", "--json")[1])) == 3


def test_before_anything_is_installed_there_is_no_set_of_packages(ext: Ext) -> None:
    assert json.loads(ext("extensions.overlays", group="rpc")[1])["overlays"] == []


# -- changing ----------------------------------------------------------------------------------------------------------


def test_switching_off_lasts_and_switching_on_too(ext: Ext) -> None:
    assert ext("disable", "greeter") == (0, "", "greeter is disabled; back with: jan ext enable greeter\n")
    assert "disabled" in ext("list")[1]
    assert "extension greeter is disabled" in ext("greeter.greet", group="rpc")[2]
    assert ext("enable", "greeter") == (0, "", "greeter is active\n")
    assert ext("greeter.greet", group="rpc")[0] == 0


def test_enabling_what_fails_is_a_failure_that_says_why(ext: Ext) -> None:
    status, _, err = ext("enable", "broken", sources=[InlineSource("broken", Broken, ["broken."])])
    assert status == 1
    assert "broken is failed: activate: no [31mluck" in err
    assert "jan ext doctor broken" in err


def test_a_reload_says_how_long_it_took_and_a_failure_where(ext: Ext, tmp_path: Path) -> None:
    new_project("tried", tmp_path / "tried")
    status, _, err = ext("reload", "tried", sources=[folder_source(tmp_path / "tried")])
    assert status == 0
    assert err.startswith("tried serves from generation 2 after ")
    assert err.endswith(" ms\n")
    plugin = tmp_path / "tried" / "src" / "jan_tried" / "plugin.py"
    plugin.write_text(plugin.read_text("utf-8") + "\n)\n", "utf-8")
    status, _, err = ext("reload", "tried", sources=[folder_source(tmp_path / "tried")])
    assert status == 1
    assert f"{plugin}:" in err
    assert "jan ext disable" in err


def test_without_earlier_code_there_is_nothing_to_go_back_to(ext: Ext) -> None:
    ext("greeter.greet", group="rpc")
    status, _, err = ext("rollback", "greeter")
    assert status == 1
    assert "no earlier code of greeter" in err
    assert "jan ext undo" in err


# -- writing one -------------------------------------------------------------------------------------------------------


def test_a_new_project_is_written_where_it_is_wanted(jan: Jan, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = jan("ext", "new", "my-tool")
    assert done.returncode == 0
    assert b"my-tool/src/jan_my_tool/plugin.py\n" in done.stdout
    assert done.stderr == b'edit, save, see: jan ext dev "my-tool" --call my_tool.greet\n'
    assert jan("ext", "new", "my-tool", "--into", str(tmp_path / "a place")).returncode == 0
    assert (tmp_path / "a place" / "README.md").exists()


@pytest.mark.parametrize("name", ["naïve", "class", "settings", "chat", "assistants", "jan-x", "", "\udcff"])
def test_a_name_nobody_can_have_is_wrong_usage(jan: Jan, tmp_path: Path, name: str) -> None:
    done = jan("ext", "new", name, "--into", str(tmp_path / "p"))
    assert done.returncode == 2
    assert b"Error: " in done.stderr
    assert not (tmp_path / "p").exists()


def test_a_folder_in_use_is_one_line(jan: Jan, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = jan("ext", "new", "my-tool", "--into", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"jan: {tmp_path} is there already, and not an empty folder",
        "     choose another folder with: --into DIR",
    ]


# -- safe mode ---------------------------------------------------------------------------------------------------------


def test_safe_mode_reaches_the_host(tmp_path: Path) -> None:
    seen = []

    @asynccontextmanager
    async def opener(app: App, activate: bool) -> AsyncIterator[Caller]:
        seen.append(app.safe_mode)
        async with Host(tmp_path, sources=[]) as host:
            yield host.client("cli")

    assert run(["--safe-mode", "rpc", "ping"], opener) == 0
    assert run(["rpc", "ping"], opener) == 0
    assert seen == [True, False]


# -- edit, save, see ---------------------------------------------------------------------------------------------------


class Running:
    """`jan ext …` under way in a process of its own."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from jan_sidecar.cli import main; main()", "ext", *arguments],
            env={**environment, "PYTHONWARNINGS": "default"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._data = b""

    def line(self, *parts: str) -> str:
        """Wait for a line with all of `parts`."""
        assert self.process.stdout is not None
        deadline, seen = time.monotonic() + LIMIT, []
        while True:
            while b"\n" in self._data:
                text, _, self._data = self._data.partition(b"\n")
                seen.append(text.decode())
                if all(part in seen[-1] for part in parts):
                    return seen[-1]
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"{parts} did not come; there was {seen}"
            self._data += data

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Dev(Running):
    """`jan ext dev`: lines out, edits in."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        super().__init__(environment, "dev", str(folder), *arguments)
        self.plugin = folder / "src" / "jan_tried" / "plugin.py"

    def edit(self, old: str, new: str) -> None:
        text = self.plugin.read_text("utf-8")
        assert old in text
        written = self.plugin.with_suffix(".new")
        written.write_text(text.replace(old, new), "utf-8")
        written.replace(self.plugin)  # in one step, as editors save: half a file is a mistake like any other


@pytest.fixture
def dev(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    begun: list[Dev] = []

    def begin(*arguments: str, isolated: bool = False, broken: bool = False) -> Dev:
        new_project("tried", tmp_path / "a project")
        if broken:
            (tmp_path / "a project" / "src" / "jan_tried" / "shapes.py").write_text("import jan_nowhere\n", "utf-8")
        if isolated:
            project = tmp_path / "a project" / "pyproject.toml"
            project.write_text(project.read_text("utf-8").replace('"none"', '"process"'), "utf-8")
        begun.append(Dev(environment, tmp_path / "a project", *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def test_an_edit_is_saved_and_seen(dev: Callable[..., Dev]) -> None:
    work = dev("--call", "tried.greet", '{"name": "Ada"}')
    work.line("serves", "generation 1", "+tried.greet")
    work.line('{"text":"Hello, Ada!","count":1}')
    work.edit('params.name}!"', 'params.name}?"')
    work.line("serves", "generation 2 after", " ms")
    work.line('{"text":"Hello, Ada?","count":2}')
    work.edit("self.memory.greeted += 1", "self.memory.greeted += 1 1")
    work.line("failed", f"{work.plugin}:", "generation 2 goes on")
    work.edit("+= 1 1", '+= 1; self.ctx.log.info("counted"); 1 / 0')
    work.line("serves", "generation 3")
    work.line("info", "counted")
    work.line("error", "ZeroDivisionError", f"{work.plugin}:")
    work.edit("1 / 0", "raise SystemExit(3)")
    work.line("error", "called sys.exit(3)", f"{work.plugin}:")
    work.edit("def jan_event", "def jan_evnt")
    assert work.line("failed", "did you mean jan_event").endswith("jan_event?; generation 4 goes on")
    work.edit("def jan_evnt", "def jan_event")
    work.edit("from jan_core", "import jan_nowhere\nfrom jan_core")
    work.line("failed", "No module named 'jan_nowhere'", f"{work.plugin}:3)", "comes with: jan ext install")
    work.edit("import jan_nowhere\n", "")
    work.edit('"tried.greet"', '"tried.welcome"')
    work.line("serves", "+tried.welcome", "-tried.greet")
    work.line("error", "method_not_found")
    work.process.send_signal(signal.SIGINT)
    assert work.process.wait(LIMIT) == 0


def test_it_ends_when_nobody_reads_any_more(dev: Callable[..., Dev]) -> None:
    work = dev("--call", "tried.greet")
    work.edit("return Greeting", "import asyncio; await asyncio.sleep(0.2); return Greeting")
    work.line("serves")
    assert work.process.stdout is not None
    work.process.stdout.close()
    assert work.process.wait(LIMIT) == 0


def test_what_fails_at_the_start_is_said_once(dev: Callable[..., Dev]) -> None:
    work = dev(broken=True)
    work.line("watching")
    assert "  failed  import: " in work.line("jan_nowhere")


def test_an_edit_of_what_runs_in_its_own_process_is_seen_as_well(dev: Callable[..., Dev]) -> None:
    work = dev("--call", "tried.greet", isolated=True)
    work.line('{"text":"Hello, world!","count":1}')
    work.edit("self.memory.greeted += 1", "self.memory.greeted += 1; 1 / 0")
    work.line("serves", "generation 2 after")
    work.line("error", "ZeroDivisionError", f"{work.plugin}:")
    work.edit("1 / 0", "import os; os._exit(3)")
    work.line("serves", "generation 3 after")
    work.line("error", "extension_crashed")
    work.process.send_signal(signal.SIGINT)
    assert work.process.wait(LIMIT) == 0


def test_the_log_is_followed_until_interrupted(environment: dict[str, str]) -> None:
    log = Path(environment["JAN_DATA_DIR"]) / "logs" / "jan.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 00:00:00,000 1 INFO jan.assistant: earlier\n", "utf-8")
    follow = Running(environment, "logs", "assistant", "-f", "-n", "1")
    try:
        follow.line("jan.assistant: earlier")
        with log.open("a", encoding="utf-8") as file:
            file.write("2026-01-01 00:00:01,000 1 INFO jan.download: not asked for\n")
            file.write("2026-01-01 00:00:01,000 1 INFO jan.assistant: later\n")
        assert follow.line("00:00:01").endswith("jan.assistant: later")
        follow.process.send_signal(signal.SIGINT)
        assert follow.process.wait(LIMIT) == 130
    finally:
        follow.end()


def test_a_project_that_is_none_is_one_line(jan: Jan, tmp_path: Path) -> None:
    done = jan("ext", "dev", str(tmp_path))
    assert done.returncode == 1
    assert "pyproject.toml" in done.stderr.decode()
    assert "jan ext new NAME" in done.stderr.decode()
    assert jan("ext", "dev", str(tmp_path / "nowhere")).returncode == 2
    new_project("tried", tmp_path / "p")
    assert jan("ext", "dev", str(tmp_path / "p"), "{}").returncode == 2
    assert jan("ext", "dev", str(tmp_path / "p"), "--call", "x.y", "{").returncode == 2

"""Detection's way of asking: real processes that hang, flood, fail, lie or are not there."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.engines.hardware.tools import SystemTools, ask_all

Put = Callable[[str, str], Path]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins for tools are shell scripts")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a script of this name first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


def test_what_a_tool_says_is_told_with_its_status(tool: Put) -> None:
    tool("asked", 'echo "$1 $LC_ALL"; echo complaint >&2; exit 3')
    answer = SystemTools().run(("asked", "this"))
    assert (answer.status, answer.output, answer.error, answer.problem) == (3, "this C\n", "complaint\n", "")
    assert not answer.ok


def test_a_tool_that_is_not_there_costs_nothing_and_says_so() -> None:
    answers = ask_all(SystemTools(), [("no-such-tool", "-q")])
    assert answers["no-such-tool", "-q"].problem == "no-such-tool is not installed"


def test_a_tool_that_hangs_is_ended_with_its_children(tool: Put, tmp_path: Path) -> None:
    fifo = tmp_path / "held by the child"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    tool("stuck", f"sleep 60 > '{fifo}' & echo begun; wait")
    began = time.monotonic()
    answer = SystemTools(timeout=1).run(("stuck",))
    assert (answer.problem, answer.output) == ("stuck gave no answer in 1 s", "begun\n")
    os.set_blocking(held, True)
    assert os.read(held, 1) == b""  # its end: the child is gone
    os.close(held)
    assert time.monotonic() - began < 30


def test_a_tool_that_closes_its_output_and_stays_is_ended(tool: Put) -> None:
    tool("silent", "exec >&- 2>&-; sleep 60")
    assert SystemTools(timeout=0.5).run(("silent",)).problem == "silent gave no answer in 0.5 s"


def test_a_tool_that_floods_is_ended_and_what_it_said_is_bounded(tool: Put) -> None:
    tool("flood", "exec yes flood")
    answer = SystemTools(timeout=60).run(("flood",))
    assert answer.problem == "flood printed without end"
    assert len(answer.output) < 8 * 2**20


def test_a_tool_that_cannot_be_started_is_a_problem(tool: Put) -> None:
    path = tool("odd", "")
    path.write_bytes(b"\x00\x01\x02")
    assert "odd could not be started" in SystemTools().run(("odd",)).problem


def test_a_tool_in_a_relative_folder_of_the_path_is_not_taken(
    tool: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("planted", "echo evil")
    monkeypatch.setenv("PATH", f".{os.pathsep}bin")
    monkeypatch.chdir(tmp_path)
    assert not SystemTools().has("planted")


def test_tools_are_asked_at_the_same_time(tool: Put) -> None:
    """Each waits for the other: one after the other they would never end."""
    for one, other in (("left", "right"), ("right", "left")):
        tool(one, f'cd "$(dirname "$0")"; : > {one}.here; until [ -e {other}.here ]; do sleep 0.02; done; echo met')
    answers = ask_all(SystemTools(timeout=30), [("left",), ("right",)])
    assert [answer.output for answer in answers.values()] == ["met\n", "met\n"]


def test_files_and_folders_that_cannot_be_read_are_empty(tmp_path: Path) -> None:
    tools = SystemTools()
    assert (tools.read(str(tmp_path)), tools.read("/no/such/file"), tools.read("a\0b")) == ("", "", "")
    assert (tools.names("/no/such/folder"), tools.names("a\0b")) == ([], [])
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert tools.read(str(tmp_path / "latin")) == "caf\ufffd"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no nvidia-smi to stand in for")
def test_a_whole_detection_outlives_broken_tools(tool: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("nvidia-smi", "sleep 60")
    tool("rocminfo", "head -c 100000 /dev/urandom; exit 139")
    tool("vulkaninfo", "kill -SEGV $$")
    hardware = detect(SystemTools(timeout=1))
    assert hardware.devices == []
    assert hardware.absent["cuda"] == "nvidia-smi gave no answer in 1 s: the driver hangs; restart the computer"
    assert hardware.absent["rocm"].startswith("ROCm failed (status 139)")
    assert hardware.absent["vulkan"].startswith("vulkaninfo told of no GPU")

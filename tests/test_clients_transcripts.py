"""The golden transcripts, replayed against the real `jan-sidecar` in both framings, and recorded anew."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from .conftest import BIN

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "clients" / "transcripts"
FILES = sorted(FOLDER.glob("*.ndjson"))


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "tools" / "transcripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


class Wire:
    """Messages over a child's pipes, a line each or behind a header."""

    def __init__(self, framing: str, out: IO[bytes], into: IO[bytes]) -> None:
        self._headers, self._out, self._in = framing == "content-length", out, into

    def write(self, body: bytes) -> None:
        self._out.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body) if self._headers else body + b"\n")
        self._out.flush()

    def read(self) -> bytes:
        if not self._headers:
            return self._in.readline()
        length = 0
        while (line := self._in.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return self._in.read(length)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Any]:
    running: list[subprocess.Popen[bytes]] = []

    def start(args: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [BIN / "jan-sidecar", "--data-dir", tmp_path, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(FOLDER / "probe")},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize("framing", ["lines", "content-length"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sidecar_says_what_the_transcript_says(path: Path, framing: str, sidecar: Any) -> None:
    header, *lines = lines_of(path)
    process = sidecar(header["args"])
    wire = Wire(framing, process.stdin, process.stdout)
    for line in lines:
        match line:
            case {"send": message}:
                wire.write(json.dumps(message).encode())
            case {"raw": text}:
                wire.write(text.encode())
            case {"receive": wanted}:
                assert TOOL.normalised(json.loads(wire.read())) == wanted
            case {"exit": status}:
                process.stdin.close()
                assert process.stdout.read() == b"", "nothing more is said"
                assert process.wait(10) == status


def test_every_scene_has_its_transcript_and_every_transcript_its_scene() -> None:
    assert {path.stem for path in FILES} == {scene.__name__ for scene, _ in TOOL.SCENES}


def test_a_scene_is_recorded_as_it_is_stored() -> None:
    for scene, args in TOOL.SCENES:
        if scene.__name__ in ("stream", "disabled"):
            assert TOOL.record(scene, args) == (FOLDER / f"{scene.__name__}.ndjson").read_text("utf-8")


def test_no_transcript_holds_what_differs_from_run_to_run() -> None:
    text = "".join(path.read_text("utf-8") for path in FILES)
    assert str(Path.home()) not in text
    assert sys.prefix not in text
    for path in FILES:
        for line in lines_of(path):
            if "receive" in line:
                assert TOOL.normalised(line["receive"]) == line["receive"]

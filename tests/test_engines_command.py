"""`jan engines` as a person types it: installing, switching, going back, and an interrupt that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extensions.llamacpp.tests.wheel_index import WheelIndex, pack, serving

from .conftest import BIN, Jan


@pytest.fixture(scope="module")
def wheel(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine of the test machine as a wheel of another version, which is then the newer one."""
    (engine,) = engines.glob("cpu-*")
    return pack(engine, tmp_path_factory.mktemp("wheel"), version="0.3.100")


@pytest.fixture
def index() -> Iterator[WheelIndex]:
    with serving() as running:
        yield running


def test_a_wheel_is_installed_used_and_gone_back_from(jan: Jan, wheel: Path) -> None:
    [before] = json.loads(jan("engines", "list", "--json").stdout)["installed"]
    assert jan("chat", "hello").returncode == 0  # it works: there is something to go back to
    done = jan("engines", "install", "--wheel", str(wheel))
    assert (done.returncode, done.stderr) == (
        0,
        f"cpu-0.3.100 is installed and works ({wheel.name}, hash not known)\n",
    )
    assert json.loads(jan("engines", "explain", "--json").stdout)["build"] == "cpu-0.3.100"
    done = jan("engines", "rollback")
    assert done.returncode == 0
    assert done.stderr.startswith(f"{before['id']} is used from the next load of a model on")
    assert json.loads(jan("engines", "list", "--json").stdout)["use"] == before["id"]
    assert "chosen by hand" in jan("engines", "list").stdout
    assert jan("engines", "use", "cpu-0.3.100").returncode == 0
    assert jan("engines", "use", "auto").returncode == 0
    assert jan("engines", "remove", "cpu-0.3.100").stderr == "cpu-0.3.100 is removed\n"
    assert json.loads(jan("engines", "explain", "--json").stdout)["build"] == before["id"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("engine.zip", "is not named as a wheel is"),
        ("llama_cpp_python-0.3.36.tar.gz", "is a source archive; a wheel (.whl) is needed"),
        ("llama_cpp_python-0.3.36-py3-none-win32.whl", "is for win32; this system takes"),
    ],
)
def test_a_file_that_is_no_engine_is_one_clear_line(jan: Jan, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    done = jan("engines", "install", "--wheel", str(tmp_path / name))
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr.splitlines()[0]


def test_what_cannot_be_done_is_one_clear_line(jan: Jan) -> None:
    assert "nothing to go back to" in jan("engines", "rollback").stderr
    assert "is not installed; install it first" in jan("engines", "use", "vulkan-1").stderr
    assert jan("engines", "install", "--sha256", "0" * 64).returncode == 2


def test_an_interrupted_download_goes_on_where_it_was(
    jan: Jan, data_dir: Path, index: WheelIndex, engines: Path, tmp_path: Path
) -> None:
    (engine,) = engines.glob("cpu-*")
    packed = pack(engine, tmp_path)
    held = packed.stat().st_size // 2
    index.offer("cpu", packed)
    index.fail(f"/files/cpu/{packed.name}", hold=held)
    jan("settings", "set", "llamacpp.wheel_index", f"{index.url}/whl")
    assert jan("engines", "remove", engine.name).returncode == 0
    with subprocess.Popen(
        [BIN / "jan", "engines", "install", engine.name],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAN_DATA_DIR": str(data_dir), "NO_COLOR": "1"},
    ) as process:
        assert index.holding.wait(60)
        _until(lambda: any(part.stat().st_size for part in data_dir.rglob("*.whl.part")))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 130
    assert "what was fetched and compiled is kept: the same command goes on from there" in said
    done = jan("engines", "install", engine.name)
    assert (done.returncode, "hash as the index tells" in done.stderr) == (0, True)
    first, second = index.fetched()
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= held


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

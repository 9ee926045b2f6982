"""The figures of bench/downloads are worth what its contents, clients and counters are."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench" / "downloads"
FOLDERS = [BENCH, ROOT / "bench" / "host", ROOT / "bench" / "inference"]
MODULES = ("content", "kit", "proc", "repair", "sides", "throughput", "timeline", "web")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian's package nginx-light has it)")
needs_proc = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="there is no /proc")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the bench, importable while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        before = set(sys.modules)
        for folder in [ROOT, *reversed(FOLDERS)]:
            patch.syspath_prepend(folder)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or ".").parent in FOLDERS:
                del sys.modules[name]


def test_a_file_is_the_same_each_time_and_is_described_as_it_is(bench: SimpleNamespace, tmp_path: Path) -> None:
    size = bench.content.PIECE + 1_000_000
    made, again = (bench.content.noise(tmp_path / name, size) for name in ("a", "b"))
    data = made.path.read_bytes()
    assert data == again.path.read_bytes()
    assert (len(data), made.sha256) == (size, hashlib.sha256(data).hexdigest())
    halves = [data[: bench.content.PIECE], data[bench.content.PIECE :]]
    assert made.list_path.read_bytes() == b"".join(hashlib.sha256(half).digest() for half in halves)
    asked = made.file("http://a/b", pieces="http://a/c")
    assert asked["pieces"]["count"] == 2
    assert asked["pieces"]["sha256"] == hashlib.sha256(made.list_path.read_bytes()).hexdigest()


def test_a_file_of_holes_has_no_piece_twice(bench: SimpleNamespace, tmp_path: Path) -> None:
    made = bench.content.holes(tmp_path / "holes", 4 * bench.content.PIECE)
    hashes = {made.hashes[at : at + 32] for at in range(0, len(made.hashes), 32)}
    assert len(hashes) == 4
    assert made.sha256 == bench.content.digest(made.path)


@needs_proc
def test_what_a_process_writes_is_seen_when_it_does(bench: SimpleNamespace, tmp_path: Path) -> None:
    code = "import sys\nfor line in sys.stdin: open(sys.argv[1], 'ab').write(b'x' * int(line)); print(flush=True)"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with bench.timeline.Timeline(process.pid) as timeline:
            for count in (1_000_000, 2_000_000):
                total, give_up = timeline.written + count, time.monotonic() + 20
                process.stdin.write(f"{count}\n")
                process.stdout.readline()
                while timeline.written < total:
                    assert time.monotonic() < give_up
        process.stdin.close()
    first, second = timeline.reached(1_000_000), timeline.reached(3_000_000)
    assert first is not None
    assert second is not None
    assert first < second
    assert timeline.reached(4_000_000) is None
    assert timeline.longest_pause(first, second) <= second - first


@needs_proc
def test_memory_and_computing_are_a_process_s_own(bench: SimpleNamespace) -> None:
    program = bench.sides.Ran()
    code = (
        "import time; data = bytearray(100 << 20); end = time.process_time() + 0.2\nwhile time.process_time() < end: 1"
    )
    program.add([sys.executable, "-c", code])
    assert 100 < program.peak < 150
    assert 0.2 <= program.computing < 2
    small = bench.sides.Ran().add([sys.executable, "-c", "import time; time.sleep(0.1)"])
    assert small.peak < 50
    with pytest.raises(bench.kit.NotTakenError, match="ended with 3: what it says"):
        bench.sides.Ran().add([sys.executable, "-c", "import sys; print('what it says', file=sys.stderr); sys.exit(3)"])


def test_a_speed_is_over_the_best_of_the_others(bench: SimpleNamespace) -> None:
    def took(*seconds: float) -> list[object]:
        return [bench.sides.Took(seconds=s, transfer=s, computing=1, peak=1, path="") for s in seconds]

    mine, other = bench.sides.OURS, bench.sides.ARIA2
    taken = {mine[0]: took(1.0, 3.0, 2.0), mine[1]: took(1.0), other[0]: took(4.0), other[1]: took(3.0, 3.0)}
    reaches = {reach.what: reach.value for reach in bench.throughput._reaches(taken)}
    assert reaches[f"{mine[0]}: over aria2c's best, checked"] == pytest.approx(1.5)
    assert reaches[f"{mine[1]}: over aria2c's best, checked"] == pytest.approx(3.0)
    assert reaches[f"{mine[1]}: over httpx's best"] is None


def run(*options: str) -> str:
    command = [sys.executable, str(BENCH), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@needs_nginx
@needs_proc
def test_every_part_has_its_figures() -> None:
    printed = run()
    assert printed.count("\n## ") == 7
    assert "not taken:" not in printed
    assert re.search(r"^\| ours, pieces' hashes known +\| +[\d,]+ ", printed, re.MULTILINE)
    assert re.search(r"one wrong byte costs +\| +≤ 8 MiB \| +8.00 MiB \| +reached", printed)
    assert re.search(r"the Hugging Face cache: bytes fetched +\| +≤ 0 \| +0 \| +reached", printed)


def test_a_part_that_is_none_is_told_from_those_that_are() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--only", "speed"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no part speed" in done.stderr

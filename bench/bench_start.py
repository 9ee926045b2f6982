"""From spawn to the answer of `initialize`, beside the start of a bare interpreter.

    python bench/bench_start.py [--runs 20]

Each round starts both, alternating, so that whatever else the machine does meets both alike. Times in milliseconds.
The reach is 150 ms with the five first-party extensions discovered.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "1.0", "clientInfo": {"name": "bench", "version": "1"}},
}


def bare() -> float:
    """Start an interpreter that does nothing, and wait for its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


def sidecar(data_dir: str) -> tuple[float, int]:
    """Start the sidecar, ask `initialize`; returns the time to its answer and how many extensions it listed."""
    executable = str(Path(sys.executable).with_name("jan-sidecar"))
    began = time.perf_counter()
    with subprocess.Popen(
        [executable, "--data-dir", data_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        answer = json.loads(process.stdout.readline())
        took = (time.perf_counter() - began) * 1000
        process.stdin.close()
        process.wait(timeout=10)
    return took, len(answer["result"]["extensions"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        sidecar(folder)  # compiles bytecode, once per installation
        pairs = [(bare(), *sidecar(folder)) for _ in range(runs)]
    bares, sidecars = [p[0] for p in pairs], [p[1] for p in pairs]
    print(f"{'':24}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in (("bare interpreter", bares), ("jan-sidecar initialize", sidecars)):
        print(f"{name:24}{min(values):8.1f}{statistics.median(values):8.1f}{max(values):8.1f}")
    print(f"extensions discovered: {pairs[0][2]}")
    print(f"ratio of medians: {statistics.median(sidecars) / statistics.median(bares):.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

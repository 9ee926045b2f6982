"""From spawn to the first answer: `jan-sidecar` as it is installed, beside a bare interpreter and the others' servers.

Spawns alternate, so that whatever else the machine does meets all alike. The first of each compiles bytecode and is not
counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import frames
import servers
from client import Client, Measured, NotTakenError
from machine import Load
from report import Reach, Report, Table, figure, progress, ratio
from servers import JSON, PYGLS, PYLSP, RAW, SDK, Server

__all__ = ["measure", "sidecar"]

SPAWNS_A_ROUND = 4
SIDECAR = "jan-sidecar"


def sidecar(data: Path) -> Server:
    """The installed `jan-sidecar` on a data folder; its first call is a listing of its extensions.

    Raises NotTakenError when there is none beside this interpreter.
    """
    executable = Path(sys.executable).with_name("jan-sidecar")
    if not executable.exists():
        raise NotTakenError(f"jan-sidecar is not installed beside {executable.parent.name}/python")
    dialect = replace(frames.HOUSE, ask=lambda name, params: (name, {}))
    return Server(SIDECAR, (str(executable), "--data-dir", str(data)), dialect, echo="extensions.list")


def extensions(server: Server) -> int:
    """How many extensions it lists in its answer to `initialize`."""
    hello = frames.text(server.dialect.hello[0]) + b"\n"
    done = subprocess.run(server.command, input=hello, capture_output=True, timeout=60, check=True)
    return len(json.loads(done.stdout.partition(b"\n")[0])["result"]["extensions"])


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures. Raises NotTakenError when there is nothing to take them with."""
    taken: dict[str, list[Measured]] = {}
    notes = []
    spawns = rounds if quick else rounds * SPAWNS_A_ROUND
    with tempfile.TemporaryDirectory() as folder:
        client = Client.build(Path(folder))
        ours = sidecar(Path(folder) / "data")
        notes.append(f"{SIDECAR} with {extensions(ours)} extensions")
        compared = [s for s in servers.available() if s.name in (RAW, JSON, PYLSP, PYGLS, SDK)] + [ours]
        load = Load()
        for number in range(1 + spawns):
            for server in compared:
                progress(f"start: {number} of {spawns}, {server.name}")
                try:
                    measured = client.run(server, "cold")
                except NotTakenError as error:
                    notes.append(f"{server.name}: {error}")
                else:
                    taken.setdefault(server.name, []).extend([measured] if number else [])
    progress("")
    notes.append(f"{spawns} alternating spawns; busy with other work: {figure(load.cores())} cores")
    names = {RAW: "bare interpreter (raw pipe, -I -S)"}
    rows = [[names.get(name, name), *row(found)] for name, found in taken.items() if found]
    columns = ["", "first answer, ms: min", "median", "max", "first call, ms: median", "its end, ms", "peak, MiB"]
    return Report([Table("From spawn to the first answer", columns, rows)], reaches(taken), notes)


def row(found: list[Measured]) -> list[str]:
    first = [m.first_ms for m in found]
    later = [
        statistics.median(m.ready_ms for m in found),
        statistics.median(m.end_ms for m in found),
        max(m.peak_kib for m in found) / 1024,
    ]
    return [figure(value) for value in (min(first), statistics.median(first), max(first), *later)]


def reaches(taken: dict[str, list[Measured]]) -> list[Reach]:
    medians = {name: statistics.median(m.first_ms for m in found) for name, found in taken.items() if found}
    ours = medians.get(SIDECAR)
    return [
        Reach("`initialize` answered after spawn", ours, 150, unit="ms"),
        Reach("`initialize` answered, over pygls'", ratio(ours, medians.get(PYGLS)), 0.5),
    ]

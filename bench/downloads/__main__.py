"""Downloads beside aria2c, curl, huggingface_hub and httpx, in one run, on loopback.

    python bench/downloads [--only throughput,repair,…] [--size 1024] [--runs 3] [--quick] [--folder DIR]

A figure that misses its reach is marked, and never a failing exit status; one that could not be taken is said to be so.
What is being measured is told on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
import tempfile
import traceback
from pathlib import Path

# What the benchmarks share lies with the older ones; the fault server is that of the tests.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("host", "inference", "..")]

import machine
import versions
from kit import Kit, NotTakenError

PARTS = {
    "throughput": "A whole file",
    "memory": "A huge file",
    "kills": "Killed in the middle",
    "repair": "Mended",
    "mirrors": "Several sources",
    "ending": "The end of a file",
    "adoption": "Fetched already",
}


def main() -> int:
    options = _parser().parse_args()
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: the servers are to end with this
    print(machine.describe())
    print(versions.describe())
    with tempfile.TemporaryDirectory(prefix="jan-bench-", dir=options.folder, ignore_cleanup_errors=True) as folder:
        kit = Kit(
            Path(folder),
            size=options.size or (24 if options.quick else 1024),
            huge=options.huge or (64 if options.quick else 10240),
            runs=options.runs or (1 if options.quick else 3),
            kills=options.kills or (2 if options.quick else 20),
            quick=options.quick,
        )
        try:
            asyncio.run(_all(kit, wanted))
        finally:
            kit.close()
    return 0


async def _all(kit: Kit, wanted: list[str]) -> None:
    for name in wanted:
        print(f"\n## {PARTS[name]}\n", flush=True)
        try:
            print(await importlib.import_module(name).measure(kit), flush=True)
        except NotTakenError as error:
            print(f"not taken: {error}", flush=True)
        except Exception as error:  # the other parts have figures all the same
            traceback.print_exc()
            print(f"not taken: {type(error).__name__}: {error}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python bench/downloads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PART,…", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--size", type=int, default=0, metavar="MIB", help="the file (default: 1024)")
    parser.add_argument("--huge", type=int, default=0, metavar="MIB", help="the file for `memory` (default: 10240)")
    parser.add_argument("--runs", type=int, default=0, help="of each side, in turns (default: 3)")
    parser.add_argument("--kills", type=int, default=0, help="how often a download is killed (default: 20)")
    parser.add_argument("--quick", action="store_true", help="short, rough and small: to see that it works")
    parser.add_argument("--folder", type=Path, help="on the disk to write to (default: the one for temporary files)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

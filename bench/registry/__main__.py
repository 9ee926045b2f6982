"""The registry beside simpler ways to have a list, in one run.

    python bench/registry [--only wire,lookup,…] [--rounds 3] [--quick] [--data model_catalog_v2.json]

A figure that misses its reach is marked, and never a failing exit status; one that could not be taken is said to be so.
What is being measured is told on stderr. The fleets and the shadow have commands of their own (README.md).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path

# What the benchmarks share lies with the oldest one; hubs are made as the tests make them.
sys.path += [str(Path(__file__).parents[1] / "host"), str(Path(__file__).parents[2])]

import machine
from kit import Kit, NotTakenError

PARTS = {
    "content": "What is measured with",
    "lag": "The host's event loop during a whole sync",
    "visible": "From published to shown",
    "wire": "Polls, changes, whole lists",
    "cold": "The first list",
    "warm": "Lists from memory",
    "lookup": "Lookup and search",
    "replay": "A half year of versions",
}
PACKAGES = ("tuf", "httpx", "cryptography", "msgspec")


def main() -> int:
    options = _parser().parse_args()
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: the servers are to end with this
    print(machine.describe())
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES))
    with tempfile.TemporaryDirectory(prefix="jan-bench-") as folder:
        kit = Kit(Path(folder), 1 if options.quick else options.rounds, options.quick, options.data)
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
        prog="python bench/registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PART,…", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--quick", action="store_true", help="short, rough and small: to see that it works")
    parser.add_argument("--data", type=Path, help="a copy of Jan's catalogue (v2), for `content` and `replay`")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

"""The host beside its peers, in one run.

    python bench/host [--only rpc,start,memory,reload,…] [--rounds 5] [--quick]

A figure that misses its reach is marked, and never a failing exit status; one that could not be taken is said to be so.
"""

from __future__ import annotations

import argparse
import importlib
import traceback

import machine
import servers
from client import NotTakenError

PARTS = {
    "rpc": "Requests and streams over stdio",
    "start": "Cold start",
    "memory": "Memory",
    "reload": "Hot reload",
    "dispatch": "Hook calls",
    "switch": "A busy thread",
    "idle": "While nobody calls",
    "isolation": "An extension in a process of its own",
}

INSTALL = "`uv pip install -c requirements/pins.txt --group bench`"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python bench/host", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,…", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="short and rough: to see that it works")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    print(machine.describe())
    if found := servers.versions():
        print(", ".join(f"{name} {version}" for name, version in found.items()))
    if absent := servers.missing():
        print(f"left out, for they are not installed: {', '.join(absent)}; to get them: {INSTALL}")
    for name in wanted:
        print(f"\n## {PARTS[name]}\n", flush=True)
        try:
            print(importlib.import_module(name).measure(options.rounds, options.quick), flush=True)
        except NotTakenError as error:
            print(f"not taken: {error}", flush=True)
        except Exception as error:  # the other parts have figures all the same
            traceback.print_exc()
            print(f"not taken: {type(error).__name__}: {error}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

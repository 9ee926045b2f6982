"""Inference beside its peers, in one run.

    python bench/inference --prepare                      # engine, peers and models into the cache: some 15 minutes
    python bench/inference [--only throughput,busy,…] [--models tiny,m135-q8,…] [--rounds 3] [--quick]

A figure that misses its reach is marked, and never a failing exit status; one that could not be taken is said to be so.
What is being measured, and each figure as it comes, is told on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

# What both benchmarks share lies with the older one.
sys.path.append(str(Path(__file__).parents[1] / "host"))

import machine
import peers
import prepare
from kit import Kit, NotTakenError
from models import MODELS
from starting import SIDES

PARTS = {
    "throughput": "Many requests at once",
    "busy": "A busy desktop",
    "turns": "A second turn",
    "speculation": "Guessing what repeats",
    "steps": "What a step costs beside the decode",
    "lag": "The host's event loop",
    "loading": "Loading and unloading",
    "estimate": "Memory foretold",
    "embeddings": "Embeddings",
}


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: the servers are to end with this
    kit = Kit(
        cache=options.cache.expanduser().absolute(),
        rounds=1 if options.quick else options.rounds,
        quick=options.quick,
        models=_chosen(options.models, list(MODELS)),
        concurrency=[int(each) for each in options.concurrency.split(",")],
        temperatures=[float(each) for each in options.temperatures.split(",")],
        threads=options.threads,
        sides=_chosen(options.sides, list(SIDES), separator=";"),
    )
    wanted = _chosen(options.only, list(PARTS))
    try:
        asyncio.run(prepare.everything(kit))
    except NotTakenError as error:
        print(f"the cache cannot be filled: {error}", file=sys.stderr)
        return 1
    if options.prepare:
        return 0
    print(machine.describe())
    print(f"llama-cpp-python {peers.version()}, llama.cpp's tools from the same source, {kit.threads} threads")
    for name in wanted:
        print(f"\n## {PARTS[name]}\n", flush=True)
        try:
            print(asyncio.run(importlib.import_module(name).measure(kit)), flush=True)
        except NotTakenError as error:
            print(f"not taken: {error}", flush=True)
        except Exception as error:  # the other parts have figures all the same
            traceback.print_exc()
            print(f"not taken: {type(error).__name__}: {error}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python bench/inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jan-bench"
    parser.add_argument("--cache", type=Path, default=cache, help=f"where what is made once is kept (default: {cache})")
    parser.add_argument("--prepare", action="store_true", help="only fill the cache")
    parser.add_argument("--only", default="", metavar="PART,…", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--models", default="", metavar="MODEL,…", help=f"some of: {', '.join(MODELS)}")
    parser.add_argument("--sides", default="", metavar="SIDE;…", help=f"some of: {'; '.join(SIDES)}")
    parser.add_argument("--concurrency", default="1,2,4,8,16", metavar="N,…", help="requests at once")
    parser.add_argument("--temperatures", default="0,0.8", metavar="T,…", help="of the throughput part")
    parser.add_argument("--threads", type=int, default=prepare.usable_cores(), help="default: physical cores")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    return parser


def _chosen(text: str, known: list[str], separator: str = ",") -> list[str]:
    """Names out of `known`, all where none are named. Ends the program on a name that is none."""
    names = [name.strip() for name in text.split(separator)] if text else known
    if unknown := [name for name in names if name not in known]:
        print(f"there is no {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        raise SystemExit(2)
    return names


if __name__ == "__main__":
    raise SystemExit(main())

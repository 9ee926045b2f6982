"""Tokens per second and time to the first token: the worker, beside llama-cpp-python's own high-level API.

    python bench/bench_worker.py --engine DIR [-m MODEL.gguf] [--runs 3] [--temperature 0.8]

DIR holds llama-cpp-python (an installed engine build). Both sides run the same engine, model, threads and prompts
(random tokens, all different, so that no prefix is shared), alternately, in the same minutes; the medians of the runs
are printed. `llama_cpp.Llama` has no batching: it serves requests one after the other, as its server does. The end
token does not end an answer, on either side. Absolute figures are this machine's; the ratios are the point.

The tokens per CPU second (Linux only) count the host's part of the work too. They say what a side costs also when other
programs keep the machine busy and the wall clock says little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

PEER = """
import sys, time, json
sys.path.insert(0, sys.argv[1])
import llama_cpp
options = json.loads(sys.argv[2])
llm = llama_cpp.Llama(options["model"], n_ctx=options["n_ctx"], n_threads=options["threads"],
                      n_threads_batch=options["threads"], n_batch=512, verbose=False)
print(json.dumps(llm.n_vocab()), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    began, firsts, cpu = time.perf_counter(), [], time.process_time()
    for prompt in job["prompts"]:
        llm.reset()
        count = 0
        for token in llm.generate(prompt, temp=job["temperature"]):
            llm.detokenize([token])
            count += 1
            if count == 1:
                firsts.append(time.perf_counter() - began)
            if count == job["n"]:
                break
    print(json.dumps([time.perf_counter() - began, firsts, time.process_time() - cpu]), flush=True)
"""


class Run(NamedTuple):
    """One burst of requests: seconds in all, seconds to the first token of each, CPU seconds (0: unknown)."""

    seconds: float
    firsts: list[float]
    cpu: float


def cpu_seconds(pid: int) -> float:
    """CPU time of this process and of `pid`; from the kernel's accounting, in hundredths."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run_worker(worker: Any, prompts: list[list[int]], n: int, temperature: float) -> Run:
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    began, cpu = time.perf_counter(), cpu_seconds(worker.pid)

    async def one(tokens: list[int]) -> float:
        first, count = 0.0, 0
        params = GenerateParams(
            Prompt(tokens=tokens), Sampling(temperature=temperature, seed=1), max_tokens=n, ignore_eos=True
        )
        async for piece in worker.generate(params):
            first = first or time.perf_counter() - began
            count += piece.tokens
        assert count == n, f"{count} tokens instead of {n}"
        return first

    firsts = await asyncio.gather(*(one(tokens) for tokens in prompts))
    return Run(time.perf_counter() - began, list(firsts), cpu_seconds(worker.pid) - cpu)


class Peer:
    """`llama_cpp.Llama` in a process of its own, so that neither disturbs the other."""

    def __init__(self, engine: Path, options: dict[str, Any]) -> None:
        command = [sys.executable, "-P", "-c", PEER, str(engine), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.n_vocab = int(self._out.readline())

    def run(self, prompts: list[list[int]], n: int, temperature: float) -> Run:
        self._in.write(json.dumps({"prompts": prompts, "n": n, "temperature": temperature}) + "\n")
        self._in.flush()
        return Run(*json.loads(self._out.readline()))

    def close(self) -> None:
        self._in.close()
        self._process.wait()


def columns(ours: list[Run], theirs: list[Run], tokens: int) -> list[str]:
    """The three groups of figures of one row. `tokens`: how many each run generated."""

    def speed(runs: list[Run]) -> float:
        return statistics.median(tokens / run.seconds for run in runs)

    def first(runs: list[Run]) -> float:
        return statistics.median(first for run in runs for first in run.firsts) * 1e3

    def thrift(runs: list[Run]) -> float:
        return len(runs) * tokens / (sum(run.cpu for run in runs) or float("nan"))

    pairs = ((figure(ours), figure(theirs)) for figure in (speed, first, thrift))
    return [f"{mine:6.0f}  {other:6.0f}  {mine / other:5.2f}" for mine, other in pairs]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, default=os.environ.get("JAN_TEST_ENGINE_DIR"))
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("--concurrency", default="1,2,4,8,16")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="0: physical cores")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if not options.engine:
        parser.error("--engine is needed: a directory with llama-cpp-python")
    if options.model is None:
        import jan_llamacpp

        options.model = Path(jan_llamacpp.__file__).parent / "models" / "jan-tiny.gguf"
    if not options.model.exists():
        parser.error(f"there is no {options.model}")
    options.engine, options.model = Path(options.engine).resolve(), options.model.resolve()
    return options


async def main(options: argparse.Namespace) -> None:
    from jan_llamacpp.client import LoadOptions, WorkerProcess
    from jan_llamacpp.worker.threads import usable_cores

    engine, model = options.engine, options.model
    counts = [int(count) for count in options.concurrency.split(",")]
    threads = options.threads or usable_cores()
    n_ctx = options.prompt_tokens + options.tokens
    worker = await WorkerProcess.start(
        engine, model, LoadOptions(n_ctx=n_ctx, n_seq=max(counts), n_cells=n_ctx * max(counts), threads=threads)
    )
    peer = Peer(engine, {"model": str(model), "n_ctx": n_ctx, "threads": threads})
    source = random.Random(0)
    print(f"{worker.info.description}, llama-cpp-python {worker.info.engine}, {threads} threads,")
    print(
        f"{options.prompt_tokens} + {options.tokens} tokens, temperature {options.temperature}, {options.runs} runs\n"
    )
    print("           |      tokens/s          |     TTFT p50, ms       |   tokens per CPU s")
    print("concurrent | worker   Llama  ratio  | worker   Llama  ratio  | worker   Llama  ratio")
    for count in counts:
        ours: list[Run] = []
        theirs: list[Run] = []
        for warm_up in [True, *([False] * options.runs)]:
            prompts = [
                [source.randrange(peer.n_vocab // 2) for _ in range(options.prompt_tokens)] for _ in range(count)
            ]
            burst = await run_worker(worker, prompts, options.tokens, options.temperature)
            serial = peer.run(prompts, options.tokens, options.temperature)
            if not warm_up:
                ours.append(burst)
                theirs.append(serial)
        tokens = count * options.tokens
        print(f"{count:10} | {'  | '.join(columns(ours, theirs, tokens))}", flush=True)
    peer.close()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main(parse()))

"""Tokens per second and time to the first token: the worker, beside llama-cpp-python's own high-level API.

    python bench/bench_worker.py --engine DIR [-m MODEL.gguf] [--runs 3] [--temperature 0.8]

DIR holds llama-cpp-python (an installed engine build). Both sides run the same engine, model, threads and prompts
(random tokens, all different, so that no prefix is shared), alternately, in the same minutes; the medians of the runs
are printed. `llama_cpp.Llama` has no batching: it serves requests one after the other, as its server does. The end
token does not end an answer, on either side. Absolute figures are this machine's; the ratios are the point.
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
    began, firsts = time.perf_counter(), []
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
    print(json.dumps([time.perf_counter() - began, firsts]), flush=True)
"""


class Run(NamedTuple):
    """One burst of requests: seconds in all, and seconds to the first token of each."""

    seconds: float
    firsts: list[float]


async def run_worker(worker: Any, prompts: list[list[int]], n: int, temperature: float) -> Run:
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    began = time.perf_counter()

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
    return Run(time.perf_counter() - began, list(firsts))


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
    return options


async def main() -> None:
    from jan_llamacpp.client import LoadOptions, WorkerProcess
    from jan_llamacpp.worker.threads import physical_cores

    options = parse()
    engine, model = Path(options.engine).resolve(), options.model.resolve()
    counts = [int(count) for count in options.concurrency.split(",")]
    threads = options.threads or physical_cores()
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
    print("concurrent | worker tok/s | Llama tok/s | ratio | worker TTFT p50 | Llama TTFT p50 | ratio")
    for count in counts:
        ours: list[Run] = []
        theirs: list[Run] = []
        for warm_up in [True, *([False] * options.runs)]:
            prompts = [
                [source.randrange(peer.n_vocab // 2) for _ in range(options.prompt_tokens)] for _ in range(count)
            ]
            mine = await run_worker(worker, prompts, options.tokens, options.temperature)
            other = peer.run(prompts, options.tokens, options.temperature)
            if not warm_up:
                ours.append(mine)
                theirs.append(other)
        speeds = [statistics.median(count * options.tokens / run.seconds for run in side) for side in (ours, theirs)]
        firsts = [statistics.median(first for run in side for first in run.firsts) * 1e3 for side in (ours, theirs)]
        print(
            f"{count:10} | {speeds[0]:12.1f} | {speeds[1]:11.1f} | {speeds[0] / speeds[1]:5.2f}"
            f" | {firsts[0]:12.1f} ms | {firsts[1]:11.1f} ms | {firsts[0] / firsts[1]:5.2f}",
            flush=True,
        )
    peer.close()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main())

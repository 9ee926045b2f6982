"""The sides that are compared: each takes a burst of requests and says when text came. Started in `starting.py`."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import NotTakenError, child_pids
from sse import Answer, AnswerError, ask

if TYPE_CHECKING:
    from jan_llamacpp.client import WorkerProcess

    from jan_core.rpc.client import WireClient

__all__ = ["BatchedSide", "Burst", "HttpSide", "Job", "RpcSide", "Side", "WorkerSide", "follow"]

SAMPLING = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""With a temperature; at 0 nothing of it matters."""
USAGE = {"include_usage": True}
SILENT_RUNS = 5
"""Times that llama-batched-bench may say nothing before it is given up."""


@dataclass(frozen=True)
class Job:
    """What is asked: `texts` are user messages of `prompt` tokens each with the template, `tokens` answers' lengths."""

    texts: Sequence[str]
    prompt: int
    tokens: int
    temperature: float = 0.0


@dataclass(frozen=True)
class Burst:
    """What came of a job. Times in seconds; llama-batched-bench has no answers of its own."""

    seconds: float
    tokens: int
    answers: Sequence[Answer] = ()

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    @property
    def firsts(self) -> list[float]:
        return [answer.first for answer in self.answers]

    @property
    def gaps(self) -> list[float]:
        return [gap for answer in self.answers for gap in answer.gaps]


class Side(ABC):
    """Something that answers."""

    async def burst(self, job: Job) -> Burst:
        """All requests at once. Raises NotTakenError when an answer is not as it must be."""
        from jan_core.errors import JanError, RpcError

        began = time.perf_counter()
        try:
            answers = await asyncio.gather(*(self.answer(text, job) for text in job.texts))
        except (AnswerError, OSError, JanError, RpcError) as error:
            raise NotTakenError(str(error)) from error
        seconds = time.perf_counter() - began
        for answer in answers:
            if (answer.completion or answer.events) != job.tokens:
                raise NotTakenError(f"{answer.completion or answer.events} tokens instead of {job.tokens}")
            if answer.prompt not in (0, job.prompt):
                raise NotTakenError(f"the prompt had {answer.prompt} tokens instead of {job.prompt}")
        return Burst(seconds, job.tokens * len(answers), answers)

    @abstractmethod
    async def answer(self, text: str, job: Job) -> Answer:
        """One of them."""

    def pids(self) -> list[int]:
        """The processes that work for it."""
        return []


class WorkerSide(Side):
    """A worker process, its host being this process."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker

    async def answer(self, text: str, job: Job) -> Answer:
        from jan_llamacpp.client import GenerateParams, Prompt, Sampling

        sampling = Sampling(temperature=job.temperature, seed=42, **SAMPLING)  # type: ignore[arg-type]
        prompt = Prompt(messages=[{"role": "user", "content": text}])
        return await follow(self.worker, GenerateParams(prompt, sampling, max_tokens=job.tokens, speculate=False))

    def pids(self) -> list[int]:
        return [self.worker.pid]


class HttpSide(Side):
    """Any server of OpenAI's API."""

    def __init__(self, port: int, model: str, process: int) -> None:
        self.port, self._model, self._process = port, model, process

    async def answer(self, text: str, job: Job) -> Answer:
        return await ask(self.port, {**body(text, job), "model": self._model, "stream": True, "stream_options": USAGE})

    def pids(self) -> list[int]:
        return child_pids(self._process)


class RpcSide(Side):
    """`chat.complete` of a host."""

    def __init__(self, client: WireClient, model: str, process: int) -> None:
        self.client, self._model, self._process = client, model, process

    async def answer(self, text: str, job: Job) -> Answer:
        answer = Answer(time.perf_counter())
        request = {**body(text, job), "model": self._model, "stream": True}
        async with self.client.stream("chat.complete", request) as stream:
            async for chunk in stream:
                now = time.perf_counter()
                for choice in chunk["choices"]:
                    if piece := choice["delta"].get("content"):
                        answer.arrived(piece, now)
            usage = (await stream.result())["usage"]
        answer.ended = time.perf_counter()
        answer.prompt, answer.completion = usage["prompt_tokens"], usage["completion_tokens"]
        return answer

    def pids(self) -> list[int]:
        return child_pids(self._process)


class BatchedSide(Side):
    """llama-batched-bench: decoding alone, without sampling, text or requests. The limit of what batching can give."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    async def burst(self, job: Job) -> Burst:
        for _ in range(SILENT_RUNS):
            if (seconds := await self._seconds(job)) is not None:
                return Burst(seconds, job.tokens * len(job.texts))
        raise NotTakenError(f"llama-batched-bench said nothing, {SILENT_RUNS} times")

    async def _seconds(self, job: Job) -> float | None:
        """What it took by its own clock, without the load; None when it said nothing."""
        # It ends before its logging thread has written the last line. So a small measurement follows the one that
        # counts, and even then the line may be lost.
        counts = f"{len(job.texts)},1"
        command = [*self._command, "-npp", str(job.prompt), "-ntg", str(job.tokens), "-npl", counts]
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, "--output-format", "jsonl", stdout=pipe, stderr=null)
        out, _ = await process.communicate()
        if process.returncode:
            raise NotTakenError(f"llama-batched-bench ended with {process.returncode}")
        found = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
        return float(found[0]["t"]) if found and found[0]["pl"] == len(job.texts) else None

    async def answer(self, text: str, job: Job) -> Answer:
        raise NotImplementedError("it answers nothing")


def body(text: str, job: Job) -> dict[str, Any]:
    """A chat request as OpenAI has it, with llama.cpp's sampling fields."""
    said = {"messages": [{"role": "user", "content": text}], "max_tokens": job.tokens}
    return said | {"temperature": job.temperature, "seed": 42, **(SAMPLING if job.temperature else {})}


async def follow(worker: WorkerProcess, params: Any) -> Answer:
    """An answer of a worker."""
    answer = Answer(time.perf_counter())
    async for piece in worker.generate(params):
        now = time.perf_counter()
        if piece.text:
            answer.arrived(piece.text, now)
        if piece.usage is not None:
            used, answer.ended = piece.usage, now
            answer.prompt, answer.completion, answer.cached = used.prompt, used.completion, used.cached
            answer.drafted, answer.accepted = used.drafted, used.accepted
    return answer

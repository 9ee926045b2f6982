"""What the tests of the pool start their workers with."""

from __future__ import annotations

from pathlib import Path

import anyio
from jan_llamacpp.client import GenerateParams, LoadOptions, Prompt, Sampling, WorkerProcess
from jan_llamacpp.failures import ModelLoadFailed

from jan_core import Progress


class Starter:
    """Starts real workers, all for the same file; can be held back, and made to fail."""

    def __init__(self, engine: Path, model: Path) -> None:
        self.engine, self.model = engine, model
        self.starts: list[str] = []
        self.error: ModelLoadFailed | None = None
        self.held = False
        self.begun, self.go_on = anyio.Event(), anyio.Event()

    async def __call__(self, id: str, report: Progress) -> WorkerProcess:
        self.starts.append(id)
        report(f"loading {id}", 0.0, 1.0)
        self.begun.set()
        if self.held:
            await self.go_on.wait()
        if self.error:
            raise self.error
        return await WorkerProcess.start(self.engine, self.model, LoadOptions(n_ctx=512, n_seq=2, threads=1))


async def answer(worker: WorkerProcess, max_tokens: int = 3) -> int:
    prompt = GenerateParams(Prompt(text="abc"), Sampling(temperature=0), max_tokens=max_tokens, ignore_eos=True)
    return sum([piece.tokens async for piece in worker.generate(prompt)])

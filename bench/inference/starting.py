"""Starts the sides: ours in three ways (the worker alone, a host over JSON-RPC and over HTTP), the others in their own.

All get the same limits: `N_SEQ` requests at a time of up to `n_ctx` tokens each, and the same number of threads.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
from kit import Kit, NotTakenError, spawned
from models import Shape
from sides import BatchedSide, HttpSide, Job, RpcSide, Side, WorkerSide
from sse import AnswerError

if TYPE_CHECKING:
    from jan_llamacpp.client import WorkerProcess

    from jan_core.rpc.client import WireClient

__all__ = ["BATCHED", "BATCHED_ONE", "HTTP", "LIMITS", "LLAMA_CPP", "N_SEQ", "ONE", "RPC", "SERVER", "SIDES", "WORKER"]
__all__ += ["START_SECONDS", "free_port", "host", "house", "llama_server", "server_command", "start", "worker"]

N_SEQ = 16
START_SECONDS = 120.0
MOST_CELLS = 8192
"""Cells of the cache that a host gives all requests together, however many there may be at a time."""

WORKER, RPC, HTTP = "ours, worker", "ours, RPC", "ours, HTTP"
SERVER, ONE, LLAMA_CPP = "llama-server", "llama-server, one cache", "llama_cpp.server"
BATCHED, BATCHED_ONE = "llama-batched-bench", "llama-batched-bench, one cache"
LIMITS = (BATCHED, BATCHED_ONE)


@asynccontextmanager
async def worker(kit: Kit, model: Path, **options: Any) -> AsyncIterator[WorkerProcess]:
    """A worker of ours with a model; `options` are those of LoadOptions, 16 requests and no speculation unless said."""
    from jan_llamacpp.client import LoadOptions, WorkerProcess

    options = {"n_seq": N_SEQ, "speculate": False, **options}
    running = await WorkerProcess.start(kit.engine, model, LoadOptions(**options))
    try:
        yield running
    finally:
        await running.close()


@asynccontextmanager
async def host(kit: Kit) -> AsyncIterator[tuple[WireClient, int]]:
    """A `jan-sidecar` on the benchmark's data folder, connected to: the client, and the process.

    Raises NotTakenError when it does not start.
    """
    from jan_core.errors import RpcError
    from jan_core.rpc.client import WireClient

    command = [str(executable("jan-sidecar")), "--data-dir", str(kit.data)]
    pipe = asyncio.subprocess.PIPE
    log = kit.cache / "logs" / "jan-sidecar.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=out)
    assert process.stdin is not None
    assert process.stdout is not None
    client = WireClient(process.stdout, process.stdin)
    try:
        try:
            async with asyncio.timeout(START_SECONDS):
                await client.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "bench"}})
                client.notify("initialized", {})
                await client.call("models.list")  # waits for the extension: until it is active it has no settings
        except (RpcError, OSError) as error:
            raise NotTakenError(f"jan-sidecar: {error}") from error
        yield client, process.pid
    finally:
        await client.aclose()
        try:
            async with asyncio.timeout(30):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()


async def house(client: WireClient, kit: Kit, shape: Shape, n_ctx: int) -> None:
    """Give a host the model, and the same limits as everybody else. Raises NotTakenError when it has others."""
    from jan_core.errors import RpcError

    known = {model["id"] for model in (await client.call("models.list"))["models"]}
    if shape.name not in known:
        await client.call("models.import", {"path": str(kit.model(shape)), "id": shape.name})
    values = {"n_ctx": n_ctx, "parallel": N_SEQ, "threads": kit.threads, "speculate": False}
    try:
        await client.call("settings.set", {"extension": "llamacpp", "values": values})
        info = (await client.call("models.load", {"id": shape.name}))["info"]
    except RpcError as error:
        raise NotTakenError(f"the host does not load {shape.name}: {error}") from error
    has = (info["n_ctx"], info["n_seq"], info["threads"])
    if has != (n_ctx, N_SEQ, kit.threads) or info["n_cells"] < min(n_ctx * N_SEQ, MOST_CELLS):
        raise NotTakenError(f"the host loads {shape.name} with other limits: {info}")


@asynccontextmanager
async def rpc_side(kit: Kit, shape: Shape, n_ctx: int) -> AsyncIterator[Side]:
    async with host(kit) as (client, pid):
        await house(client, kit, shape, n_ctx)
        yield RpcSide(client, shape.name, pid)


@asynccontextmanager
async def http_side(kit: Kit, shape: Shape, n_ctx: int) -> AsyncIterator[Side]:
    async with host(kit) as (client, _):
        await house(client, kit, shape, n_ctx)  # settings are read at the start of the server below
    port = free_port()
    command = [str(executable("jan")), "--data-dir", str(kit.data), "serve", "--port", str(port)]
    async with listening(command, kit.cache / "logs" / "jan-serve.log", port, shape.name) as side:
        yield side


@asynccontextmanager
async def worker_side(kit: Kit, shape: Shape, n_ctx: int) -> AsyncIterator[Side]:
    async with worker(kit, kit.model(shape), n_ctx=n_ctx, n_cells=n_ctx * N_SEQ, threads=kit.threads) as running:
        yield WorkerSide(running)


def llama_server(
    kit: Kit, shape: Shape, n_ctx: int, *options: str, threads: int | None = None, n_seq: int = N_SEQ
) -> AbstractAsyncContextManager[HttpSide]:
    """llama-server with the same limits; `options` are its own."""
    port = free_port()
    command = server_command(kit, shape, n_ctx, port, *options, threads=threads, n_seq=n_seq)
    return listening(command, kit.cache / "logs" / "llama-server.log", port, shape.name)


def server_command(
    kit: Kit, shape: Shape, n_ctx: int, port: int, *options: str, threads: int | None = None, n_seq: int = N_SEQ
) -> list[str]:
    """How llama-server is started."""
    count = str(threads or kit.threads)
    command = [str(peers.llama_server(kit.cache)), "-m", str(kit.model(shape)), "-a", shape.name, "--port", str(port)]
    command += ["-c", str(n_ctx * n_seq), "-np", str(n_seq), "-t", count, "-tb", count, "-b", "2048", "-ub", "512"]
    # No searching for what fits, no copies of evicted prompts in memory, no monitoring: nothing beside the answers.
    return [*command, "--fit", "off", "--cache-ram", "0", "--no-slots", "--no-webui", "--log-disable", *options]


def llama_cpp_server(kit: Kit, shape: Shape, n_ctx: int) -> AbstractAsyncContextManager[HttpSide]:
    """llama-cpp-python's own server, on the engine that ours runs on. It serves one request after the other."""
    port, count = free_port(), str(kit.threads)
    command = [sys.executable, "-P", "-m", "llama_cpp.server", "--model", str(kit.model(shape)), "--port", str(port)]
    command += ["--n_ctx", str(n_ctx), "--n_threads", count, "--n_threads_batch", count, "--n_batch", "512"]
    command += ["--interrupt_requests", "False", "--verbose", "False", "--model_alias", shape.name]
    path = f"{kit.engine}:{peers.llama_cpp_server(kit.cache)}"
    return listening(command, kit.cache / "logs" / "llama_cpp.server.log", port, shape.name, PYTHONPATH=path)


@asynccontextmanager
async def batched_side(kit: Kit, shape: Shape, n_ctx: int, *options: str) -> AsyncIterator[Side]:
    count = str(kit.threads)
    command = [str(peers.batched_bench(kit.cache)), "-m", str(kit.model(shape)), "-t", count, "-tb", count]
    yield BatchedSide([*command, "-c", str(n_ctx * N_SEQ), "-b", "2048", "-ub", "512", "--fit", "off", *options])


SIDES: dict[str, Callable[[Kit, Shape, int], AbstractAsyncContextManager[Side]]] = {
    WORKER: worker_side,
    RPC: rpc_side,
    HTTP: http_side,
    SERVER: llama_server,
    ONE: lambda kit, shape, n_ctx: llama_server(kit, shape, n_ctx, "-kvu"),
    BATCHED: batched_side,
    BATCHED_ONE: lambda kit, shape, n_ctx: batched_side(kit, shape, n_ctx, "-kvu"),
    LLAMA_CPP: llama_cpp_server,
}


def start(name: str, kit: Kit, shape: Shape, n_ctx: int) -> AbstractAsyncContextManager[Side]:
    """One of SIDES, running. Raises NotTakenError when it is not there or does not start."""
    return SIDES[name](kit, shape, n_ctx)


@asynccontextmanager
async def listening(command: Sequence[str], log: Path, port: int, model: str, **env: str) -> AsyncIterator[HttpSide]:
    async with spawned(command, log, **env) as process:
        side = HttpSide(port, model, process.pid)
        hello = Job(["hello"], 0, 1)
        try:
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    try:
                        await side.answer("hello", hello)
                        break
                    except (AnswerError, OSError):
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotTakenError(f"no answer from {Path(command[0]).name}; see {log}") from None
        if process.returncode is not None:
            raise NotTakenError(f"{Path(command[0]).name} ended with {process.returncode}; see {log}")
        yield side


def executable(name: str) -> Path:
    """A program installed beside this interpreter. Raises NotTakenError."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise NotTakenError(f"{name} is not installed beside {path.parent.name}/python")
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

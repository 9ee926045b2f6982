"""The typed errors that the ends of workers and of loads stand for."""

from __future__ import annotations

import re
from typing import Any

from jan_core.errors import JanError

from .causes import LOG_LINES, Cause, Kind, memory_cause
from .failures import EngineBroken, ModelLoadFailed, OutOfMemory, WorkerDied, WorkerHung, error_from_worker
from .supervise import ExitReason
from .worker.protocol import Failed

__all__ = ["death", "failed_load", "load_ended", "start_ended", "tail"]

_DEATHS: dict[Kind, type[WorkerDied]] = {
    "hung": WorkerHung,
    "out_of_memory": OutOfMemory,
    "device_out_of_memory": OutOfMemory,
}
_REASONS = (
    re.compile(r"error loading model(?: [a-z]+)?: (.+)"),
    re.compile(r"(GGML_ASSERT\(.+\) failed)"),
    re.compile(r"gguf_init_from_\w+: (?:failed to |error: )?(.+)"),
    re.compile(r"llama_init_from_model: (?:failed to |error: )?(.+)"),
    re.compile(r"(?:what\(\):|ImportError:|OSError:) +(.+)"),
)


def death(reason: ExitReason, what: str = "the model's process is gone") -> WorkerDied:
    """The error for those who needed a worker that ended so; `what` could not be done because of it."""
    how = {"exit_code": reason.code, "signal": reason.signal, "log": tail(reason.log)}
    if reason.expected:
        return WorkerDied("the model was unloaded", cause="unloaded", advice="", **how)
    return _of_cause(reason.cause, what, **how)


def start_ended(reason: ExitReason) -> JanError:
    """The worker ended before it could do anything."""
    what = "the worker process could not start"
    if reason.cause.kind in _DEATHS:
        return death(reason, what)
    return EngineBroken(f"{what}: {reason}", log=tail(reason.log))


def load_ended(model: str, reason: ExitReason) -> JanError:
    """The worker ended while it loaded the file `model`."""
    if reason.cause.kind in _DEATHS:
        return death(reason, f"{model} could not be loaded")
    why = _reason_in(reason.log) or str(reason)
    return ModelLoadFailed(
        f"the engine gave up on {model}: {why}",
        reason=why, cause=reason.cause.kind, signal=reason.signal, exit_code=reason.code, log=tail(reason.log),
    )  # fmt: skip


def failed_load(failed: Failed, log: str) -> JanError:
    """The worker refused a load; llama.cpp's own reason is in its log, unless the engine itself is at fault."""
    memory = memory_cause(log) if failed.type == ModelLoadFailed.type else None
    if memory is not None:
        return _of_cause(memory, failed.message, log=tail(log))
    if failed.type == EngineBroken.type:
        return EngineBroken(failed.message, **failed.data, log=tail(log))
    why = failed.data.get("reason") or _reason_in(log)
    message = f"{failed.message}: {why}" if why else failed.message
    return error_from_worker(failed.type, message, {**failed.data, "reason": why, "log": tail(log)})


def tail(log: str) -> str:
    """The lines of a log that go to a caller."""
    return "\n".join(log.strip().splitlines()[-LOG_LINES:])


def _of_cause(cause: Cause, what: str, **data: Any) -> WorkerDied:
    message = f"{what}: {cause.message}" + (f". {cause.advice}" if cause.advice else "")
    return _DEATHS.get(cause.kind, WorkerDied)(message, cause=cause.kind, advice=cause.advice, **data)


def _reason_in(log: str) -> str | None:
    """llama.cpp's own words for why a load failed: the last line of the most telling kind."""
    for pattern in _REASONS:
        found = pattern.findall(log)
        if found:
            return str(found[-1]).strip()
    return None

"""The typed errors of running a model: what a caller of the worker may get. Codes -32030 to -32039, -32051
and -32052.

Errors of engine builds, files and the store are beside their own modules.
"""

from __future__ import annotations

from typing import Any

from jan_core.errors import JanError, Overloaded

__all__ = [
    "ContextOverflow",
    "EmbeddingFailed",
    "EngineBroken",
    "GenerationFailed",
    "InvalidGeneration",
    "InvalidImage",
    "ModelLoadFailed",
    "OutOfMemory",
    "TemplateFailed",
    "WorkerDied",
    "WorkerHung",
    "error_from_worker",
]


class WorkerDied(JanError):
    """The process that ran the model ended before it answered. `exit_code` or `signal` say how, `log` its last lines.
    `cause` is a stable word (`assertion`, `crash`, `defect`, `device_lost`, `exited`, `file_lost`, `heap_corruption`,
    `illegal_instruction`, `killed`, `unloaded`); `advice` says what to do, where that is known.

    With `retry_after` (seconds): it ended so often that it is not started again before then; `models.load` tries at
    once.
    """

    code, type, retryable = -32030, "worker_died", True


class WorkerHung(WorkerDied):
    """The process that ran the model stood still, and was ended. The next request starts it again."""

    code, type, retryable = -32037, "worker_hung", True


class OutOfMemory(WorkerDied):
    """There was not enough memory for the model or its context, of this machine or of a device. `advice` says what to
    do; `cause` is `out_of_memory` or `device_out_of_memory`. Otherwise as `worker_died` or `model_load_failed`.
    """

    code, type, retryable = -32038, "out_of_memory", False


class ModelLoadFailed(JanError):
    """The model could not be loaded. `reason` is llama.cpp's own if it gave one; `log` its last lines; `cause`, where
    the process ended over it, as in `worker_died`.
    """

    code, type = -32031, "model_load_failed"


class ContextOverflow(JanError):
    """Prompt and answer do not fit the context: `n_prompt`, `n_ctx`, `max_tokens` and `max_allowed` are in
    tokens.
    """

    code, type = -32032, "context_overflow"


class TemplateFailed(JanError):
    """The model's chat template cannot be used with these messages. `reason` says what it did."""

    code, type = -32033, "template_failed"


class GenerationFailed(JanError):
    """The engine could not go on with this one request. Others were not touched."""

    code, type, retryable = -32034, "generation_failed", True


class InvalidGeneration(JanError):
    """A parameter has no meaning for this model: an unknown token, an empty prompt."""

    code, type = -32035, "invalid_generation"


class EmbeddingFailed(JanError):
    """The model makes no usable vector of a text: not a number, or all zeros. `index` says of which."""

    code, type = -32051, "embedding_failed"


class InvalidImage(JanError):
    """An image of a message cannot be used: damaged, too large, or of a format that is not read. `index` says which,
    counted over all messages.
    """

    code, type = -32052, "invalid_image"


class EngineBroken(JanError):
    """The engine's libraries cannot be loaded, or the worker cannot be started. `log` has its last lines. `reason`,
    where there is one: `no_device`, a GPU build finds no GPU now (`advice` says where to look); `incompatible`, it
    lacks something that this version of the software needs.
    """

    code, type = -32036, "engine_broken"


_KINDS: dict[str, type[JanError]] = {
    kind.type: kind
    for kind in (
        ModelLoadFailed,
        OutOfMemory,
        ContextOverflow,
        TemplateFailed,
        GenerationFailed,
        InvalidGeneration,
        EmbeddingFailed,
        InvalidImage,
        EngineBroken,
        Overloaded,
    )
}


def error_from_worker(type: str, message: str, data: dict[str, Any]) -> JanError:
    """The error that a worker's refusal stands for."""
    return _KINDS.get(type, GenerationFailed)(message, **data)

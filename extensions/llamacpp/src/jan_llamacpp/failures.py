"""The typed errors of running a model: what a caller of the worker may get. Codes -32030..-32039.

Errors of engine builds, files and the store are beside their own modules.
"""

from __future__ import annotations

from typing import Any

from jan_core.errors import JanError, Overloaded

__all__ = [
    "ContextOverflow",
    "EngineBroken",
    "GenerationFailed",
    "InvalidGeneration",
    "ModelLoadFailed",
    "TemplateFailed",
    "WorkerDied",
    "error_from_worker",
]


class WorkerDied(JanError):
    """The process that ran the model ended before it answered. `exit_code` or `signal` say how, `log` its
    last lines.
    """

    code, type, retryable = -32030, "worker_died", True


class ModelLoadFailed(JanError):
    """The model could not be loaded. `reason` is llama.cpp's own if it gave one; `log` its last lines."""

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


class EngineBroken(JanError):
    """The engine's libraries cannot be loaded, or the worker cannot be started. `log` has its last lines."""

    code, type = -32036, "engine_broken"


_KINDS: dict[str, type[JanError]] = {
    kind.type: kind
    for kind in (
        ModelLoadFailed,
        ContextOverflow,
        TemplateFailed,
        GenerationFailed,
        InvalidGeneration,
        EngineBroken,
        Overloaded,
    )
}


def error_from_worker(type: str, message: str, data: dict[str, Any]) -> JanError:
    """The error that a worker's refusal stands for."""
    return _KINDS.get(type, GenerationFailed)(message, **data)

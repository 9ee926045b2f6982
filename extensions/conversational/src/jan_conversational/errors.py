"""The errors of this extension: codes -32025 to -32029."""

from __future__ import annotations

from jan_core import JanError

__all__ = ["ContextOverflow", "IncognitoFull", "MessageNotFound", "ThreadBusy", "ThreadNotFound"]


class ThreadNotFound(JanError):
    """No thread has this id. Incognito threads end with the application."""

    code, type = -32025, "thread_not_found"


class MessageNotFound(JanError):
    """The thread has no message with this id."""

    code, type = -32026, "message_not_found"


class ThreadBusy(JanError):
    """An answer is being written in this thread. Wait for its end, or cancel it."""

    code, type, retryable = -32027, "thread_busy", True


class ContextOverflow(JanError):
    """What must stay (system, pinned and the newest message) is larger than the model's context window.

    `tokens` is what it takes, `context` the window, `reserved` what is kept free for the answer.
    """

    code, type = -32032, "context_overflow"  # as the engine has it: one meaning, one code


class IncognitoFull(JanError):
    """The memory for incognito threads is used up. Delete one; `limit` is in bytes."""

    code, type = -32029, "incognito_full"

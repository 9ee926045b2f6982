"""The worker's one kind of expected failure: a typed refusal, which becomes a `Failed` frame.

Not an error of the host's (those are in `failures.py`): the child knows no host class.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Refusal"]


class Refusal(Exception):
    """A request cannot be served. `type` is one of the host's error types; `data` is for the caller."""

    def __init__(self, type: str, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.data = data

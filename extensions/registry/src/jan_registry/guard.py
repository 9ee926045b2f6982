"""What is revoked, whichever list is shown, and the models it is about."""

from __future__ import annotations

from collections.abc import Sequence

from jan_core.types import ModelRecord

from .listing import Listing
from .revocations import Revocations

__all__ = ["Guard"]


class Guard:
    """`revocations` and the lists in which their models are looked for. Never changed: another state has another."""

    def __init__(self, revocations: Revocations, lists: Sequence[Listing]) -> None:
        self.revocations, self._lists = revocations, lists

    def find(self, id: str) -> ModelRecord | None:
        """The model a revocation names. May read a disk."""
        return next((model for one in self._lists if (model := one.get(id)) is not None), None)

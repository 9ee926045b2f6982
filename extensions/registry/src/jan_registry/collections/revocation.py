"""The collection `revocations`: what must not be downloaded or loaded any more."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Revocation"]


class Revocation(Struct, omit_defaults=True, kw_only=True):
    """Revokes a file by its `sha256`, or a model by its id `model`, or both. `reason` is shown; `at` is a date."""

    id: str
    reason: str
    sha256: str = ""
    model: str = ""
    at: str = ""

"""Settings of the extension."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RegistrySettings"]


class RegistrySettings(Struct):
    """`jan settings set registry.url …`; read anew each time."""

    url: Annotated[str, Meta(pattern=r"^(https?://[\x21-\x7e]+)?$", max_length=2048)] = ""
    """Where the list is fetched. Empty: nowhere; the built-in list is shown and the network never used."""
    refresh_seconds: Annotated[int, Meta(ge=0, le=30 * 86400)] = 4 * 3600
    """How often the list is fetched in the background, give or take a fifth; 0: only on request. At least a minute."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 30.0
    """For one fetch, from the first connection to the last byte."""

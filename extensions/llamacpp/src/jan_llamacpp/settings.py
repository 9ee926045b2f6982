"""The settings of this extension."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .embedded import EMBEDDED_ID

__all__ = ["LlamaCppSettings"]

Positive = Annotated[int, Meta(ge=1)]


class LlamaCppSettings(Struct, frozen=True):
    """Read anew for each request; those of a loaded model apply when it is next loaded.

    `default_model`: who answers a request that names no model. `max_loaded`: models in memory at a time.
    `queue_seconds`: how long a request waits for room, and for its turn in a busy model, before it is
    refused. `n_ctx` (tokens), `threads`: None: chosen from the model and the machine. `parallel`: requests a
    model decodes at the same time. `offline`: an engine is only installed from what is on this machine.
    `prebuilt_wheels`: whether an engine may come from a prebuilt wheel, which is not pinned by hash; else it
    is compiled here.
    """

    default_model: str = EMBEDDED_ID
    max_loaded: Positive = 2
    queue_seconds: Annotated[float, Meta(gt=0)] = 120.0
    n_ctx: Annotated[int, Meta(ge=64, le=2**30)] | None = None
    threads: Positive | None = None
    parallel: Annotated[int, Meta(ge=1, le=256)] = 8
    offline: bool = False
    prebuilt_wheels: bool = True

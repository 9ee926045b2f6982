"""The parts of what a model takes of one place's memory. Light, because the method table names them."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["MemoryNeed"]


class MemoryNeed(Struct, frozen=True):
    """Bytes of memory by purpose, of the processor (`host`) or of one GPU.

    `weights` are used as they are in the file, mapped or read; `repacked` are rewritten for this CPU. `cache`: the KV
    cache, and the states of recurrent layers. `compute`: results within a step; `scratch`: the rows matrix products
    quantise. `output`: logits and embeddings. `projector`: its weights and what a picture takes in it. `base`: the
    process itself, its vocabulary, a GPU's driver.
    """

    weights: int = 0
    repacked: int = 0
    cache: int = 0
    compute: int = 0
    scratch: int = 0
    output: int = 0
    projector: int = 0
    adapters: int = 0
    base: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in self.__struct_fields__)

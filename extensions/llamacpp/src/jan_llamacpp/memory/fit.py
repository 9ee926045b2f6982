"""What fits: the context and the layers on GPUs that a model is loaded with, chosen from the memory that is free now.

What a person asked for is kept, whatever it takes; only what was left open is chosen. Nothing is loaded or refused
here: `Fit.fits` says whether it would go, and who loads decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from jan_core.types import Device, Hardware

from ..gguf import GGUFInfo, TensorInfo
from ..worker.options import LoadOptions
from ..worker.sizes import CELL_STEP
from .estimate import cells_of, memory_need, sizes_to_embed
from .layers import model_shape
from .need import MemoryNeed

__all__ = ["Fit", "Place", "Subject", "fit", "largest_context"]

LEAST_CTX = 512
"""A context below this is of no use to anybody; nothing smaller is chosen, only asked for."""
GOOD_CTX = 4096
"""A model that fits a GPU whole with this context is not spread over GPU and processor for a longer one."""
MARGIN, LEAST_MARGIN = 20, 128 << 20
"""A twentieth of what is free stays free, and not less than this: others allocate, too."""
IDLE_SHARE = 4
"""Idle conversations may take a quarter of what the model leaves."""


class Place(Struct, frozen=True):
    """Memory of one place, in bytes. `device`: `cpu`, or a GPU's kind and llama.cpp's number, as in `cuda0`. `main`: it
    is this computer's own memory.
    """

    device: str
    name: str
    free: int
    need: MemoryNeed
    main: bool = False

    @property
    def fits(self) -> bool:
        """Whether it goes into what is free, with a margin."""
        return self.need.total <= _usable(self.free)


class Subject(Struct, frozen=True):
    """What is to be loaded: a model's header, the tensors of all its files, and the bytes of what comes with it."""

    info: GGUFInfo
    tensors: Mapping[str, TensorInfo]
    projector: int = 0
    adapters: int = 0


class Fit(Struct, frozen=True):
    """How a model would be loaded. `reasons`: in words, for what was chosen. `rough`: the estimate is one."""

    options: LoadOptions
    places: list[Place]
    fits: bool
    reasons: list[str]
    rough: bool

    @property
    def in_main_memory(self) -> int:
        """Bytes of this computer's memory that it takes, those of GPUs that share it included."""
        return sum(place.need.total for place in self.places if place.main)

    @property
    def tightest(self) -> Place:
        """The place with the least room left, or the most that is missing."""
        return min(self.places, key=lambda place: _usable(place.free) - place.need.total)


def fit(
    subject: Subject,
    options: LoadOptions,
    hardware: Hardware,
    *,
    variant: str = "cpu",
    n_ctx: int | None = None,
    gpu_layers: int | None = None,
) -> Fit:
    """Choose what is None of `n_ctx` (tokens) and `gpu_layers` (-1: all), and no more `memory_bytes` for idle
    conversations than there is room for; the rest is as `options` says. `variant`: the engine's.

    A worker that embeds (`options.embeddings`) chooses its sizes by itself: they are told as it will have them, also
    where that is a shorter context than was asked for.
    """
    search = _Search(subject, options, hardware, variant)
    wanted = n_ctx if n_ctx is not None else search.wanted
    if gpu_layers is not None or not search.gpus:
        count = search.layers if gpu_layers is None or gpu_layers < 0 else min(gpu_layers, search.layers)
    else:
        count = search.best_layers(wanted, shorter=n_ctx is None)
    reasons = search.words(count) if search.gpus and gpu_layers is None else []
    chosen = search.weigh(wanted, count)
    if not chosen.fits and n_ctx is None:
        context = search.longest(count, wanted)
        if context:
            chosen = search.weigh(context, count, shared=True)
            reasons.append(f"a context of {context} tokens instead of {wanted}" if context < wanted else
                           f"the requests share a cache of {context} tokens")  # fmt: skip
            reasons[-1] += ": more does not fit the free memory"
    idle = min(options.memory_bytes, max(0, hardware.memory_free - chosen.in_main_memory) // IDLE_SHARE)
    return msgspec.structs.replace(
        chosen, options=msgspec.structs.replace(chosen.options, memory_bytes=idle), reasons=reasons
    )


def largest_context(
    subject: Subject, options: LoadOptions, hardware: Hardware, *, variant: str = "cpu", gpu_layers: int | None = None
) -> int:
    """The longest context, in tokens, that would fit, up to what the model was trained for; 0: none."""
    search = _Search(subject, options, hardware, variant)
    if gpu_layers is None:
        counts = {0, search.best_layers(search.wanted, shorter=True), search.layers}
        return max(search.longest(count, search.trained) for count in counts)
    return search.longest(search.layers if gpu_layers < 0 else min(gpu_layers, search.layers), search.trained)


class _Search:
    """Tries contexts and layers of one model on one machine."""

    def __init__(self, subject: Subject, options: LoadOptions, hardware: Hardware, variant: str) -> None:
        self._subject, self._options, self._hardware = subject, options, hardware
        self.gpus = gpus_of(hardware, variant)
        self.layers = subject.info.block_count + 1
        self.trained = subject.info.context_length
        self._shape = model_shape(subject.info, subject.tensors)
        self.wanted = self._sized(msgspec.structs.replace(options, n_ctx=None, n_cells=None)).n_ctx or 0

    def _sized(self, options: LoadOptions) -> LoadOptions:
        """The options with the sizes that a worker makes of them."""
        if options.embeddings:
            sizes = sizes_to_embed(self._shape, options)
            return msgspec.structs.replace(options, n_ctx=sizes.n_ctx, n_cells=sizes.n_cells, n_seq=sizes.n_seq)
        n_ctx, n_cells = cells_of(options, self.trained)
        return msgspec.structs.replace(options, n_ctx=n_ctx, n_cells=n_cells)

    def weigh(self, n_ctx: int, count: int, *, shared: bool = False) -> Fit:
        """What it takes. `count` layers are on GPUs; `shared`: no more cells than one context."""
        options = msgspec.structs.replace(self._options, n_ctx=n_ctx, n_gpu_layers=count if self.gpus else -1)
        if shared and self._options.n_cells is None:
            options = msgspec.structs.replace(options, n_cells=n_ctx)
        options = self._sized(options)
        needs = memory_need(
            self._subject.info,
            self._subject.tensors,
            options,
            features=self._hardware.features,
            gpu_layers=_dealt(count, list(self.gpus.values())),
            projector=self._subject.projector,
            adapters=self._subject.adapters,
        )
        free = self._hardware.memory_free
        places = [Place("cpu", self._hardware.cpu, free, needs[0], main=True)]
        for (place, gpu), need in zip(self.gpus.items(), needs[1:], strict=True):
            places.append(Place(place, gpu.name, gpu.memory_free, need, main=gpu.integrated))
        found = Fit(options, places, all(place.fits for place in places), [], not self._shape.known)
        return msgspec.structs.replace(found, fits=found.fits and found.in_main_memory <= _usable(free))

    def longest(self, count: int, upto: int) -> int:
        """The longest context up to `upto` that fits; 0: none of a length that is of use."""
        if self.weigh(upto, count, shared=True).fits:
            return upto
        steps = _most(LEAST_CTX // CELL_STEP, upto // CELL_STEP, lambda n: self._fits(n * CELL_STEP, count))
        return steps * CELL_STEP

    def best_layers(self, n_ctx: int, *, shorter: bool) -> int:
        """How many layers to put on GPUs. `shorter`: a shorter context, within limits, is no loss."""
        if self._fits(n_ctx, self.layers) or (shorter and self._fits(min(n_ctx, GOOD_CTX), self.layers)):
            return self.layers
        # What the GPUs hold; whether the rest fits the main memory is seen after.
        return _most(0, self.layers, lambda n: all(place.fits for place in self.weigh(n_ctx, n).places[1:]))

    def words(self, count: int) -> list[str]:
        """Why so many layers are on GPUs."""
        names = " and ".join(gpu.name for gpu in self.gpus.values())
        if count == self.layers:
            return [f"all {count} layers on {names}"]
        return [f"{count} of {self.layers} layers on {names}: more does not fit its free memory"]

    def _fits(self, n_ctx: int, count: int) -> bool:
        return self.weigh(n_ctx, count, shared=True).fits


def gpus_of(hardware: Hardware, variant: str) -> dict[str, Device]:
    """The GPUs an engine of this variant uses, by `Place.device`: as llama.cpp, integrated ones only where there is no
    other (`llama_prepare_model_devices`). One whose memory nobody tells is left to llama.cpp: not counted on.
    """
    of_kind = [device for device in hardware.devices if device.kind == variant]
    there = {f"{variant}{number}": device for number, device in enumerate(of_kind)}
    used = {place: device for place, device in there.items() if not device.integrated} or there
    return {place: device for place, device in used.items() if device.memory_free > 0}


def _dealt(count: int, gpus: Sequence[Device]) -> list[int]:
    """Layers by GPU, in proportion to their free memory, as llama.cpp deals them."""
    if not gpus:
        return []
    total = sum(device.memory_free for device in gpus)
    dealt, before, so_far = [], 0, 0
    for device in gpus:
        so_far += device.memory_free
        upto = round(count * so_far / total)
        dealt.append(upto - before)
        before = upto
    return dealt


def _most(least: int, upto: int, fits: Callable[[int], bool]) -> int:
    """The largest number from `least` to `upto` that fits, where each below one that fits fits as well; 0: none."""
    low, high = least, upto
    if low > high or not fits(low):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _usable(free: int) -> int:
    return max(0, free - max(free // MARGIN, LEAST_MARGIN))

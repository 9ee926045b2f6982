"""What a model is loaded with: options from a request, from what is kept for the model, from the settings; and what was
left open, chosen so that it fits the free memory.

A model that does not fit is refused here, before any engine is asked. Workers are started elsewhere (`services.py`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from jan_core.types import Hardware, InstalledModel

from .errors import ModelNotFound
from .failures import OutOfMemory
from .gguf import GGUFInfo, read_info
from .memory.fit import Fit, Place, Subject, fit, largest_context
from .memory.projector import projector_bytes
from .model_shapes import DeviceMemory, ModelEstimate, ModelOptions
from .settings import LlamaCppSettings
from .variants import embeds_only
from .worker.options import LoadOptions, Lora

__all__ = ["check_adapters", "check_fit", "device_memory", "estimate", "merged", "plan"]


def merged(asked: ModelOptions, model: InstalledModel) -> ModelOptions:
    """What was asked for, and where it says nothing, what is kept for the model."""
    try:
        kept = msgspec.convert(model.options, ModelOptions)
    except msgspec.ValidationError:  # written by another version, or by hand: no reason not to load
        kept = ModelOptions()
    given = {name: getattr(asked, name) for name in ModelOptions.__struct_fields__}
    return msgspec.structs.replace(kept, **{name: value for name, value in given.items() if value is not None})


def plan(
    model: InstalledModel,
    info: GGUFInfo,
    asked: ModelOptions,
    settings: LlamaCppSettings,
    hardware: Hardware,
    *,
    variant: str,
    base: LoadOptions | None = None,
) -> Fit:
    """How the model would be loaded now, by an engine of this `variant`. `info`: of all its files. `base`: options that
    no person chooses.

    Raises ModelNotFound for an adapter it does not have.
    """
    base = msgspec.structs.replace(base or LoadOptions(), variant=variant)
    subject, options, n_ctx = _prepare(model, info, asked, settings, base)
    return fit(subject, options, hardware, variant=variant, n_ctx=n_ctx, gpu_layers=asked.n_gpu_layers)


def estimate(
    model: InstalledModel,
    info: GGUFInfo,
    asked: ModelOptions,
    settings: LlamaCppSettings,
    hardware: Hardware,
    *,
    variant: str,
) -> ModelEstimate:
    """What the model would take now: to generate, or where it can do nothing else, to embed.

    Raises ModelNotFound for an adapter it does not have.
    """
    base = LoadOptions(embeddings=embeds_only(info))
    subject, options, n_ctx = _prepare(model, info, asked, settings, base)
    found = fit(subject, options, hardware, variant=variant, n_ctx=n_ctx, gpu_layers=asked.n_gpu_layers)
    return ModelEstimate(
        id=model.id,
        fits=found.fits,
        n_ctx=found.options.n_ctx or 0,
        cells=found.options.n_cells or 0,
        parallel=found.options.n_seq,
        kv_type=found.options.kv_type,
        n_gpu_layers=max(0, found.options.n_gpu_layers),
        max_n_ctx=largest_context(subject, options, hardware, variant=variant, gpu_layers=asked.n_gpu_layers),
        memory=device_memory(found),
        reasons=found.reasons,
        rough=found.rough,
    )


def check_fit(id: str, found: Fit) -> None:
    """Raises OutOfMemory where it does not fit; its data names the place, what is needed there and what is free."""
    if found.fits:
        return
    place = found.tightest
    where = "this computer's memory" if place.device == "cpu" else f"the memory of {place.name or place.device}"
    message = f"{id} does not fit: it takes {_gib(place.need.total)} of {where}, where {_gib(place.free)} are free"
    raise OutOfMemory(
        message,
        reason="memory",
        cause="out_of_memory" if place.device == "cpu" else "device_out_of_memory",
        device=place.device,
        needed=place.need.total,
        free=place.free,
        parts=msgspec.to_builtins(place.need),
        advice=_advice(place, found.options),
    )


def device_memory(found: Fit) -> list[DeviceMemory]:
    """The places of a fit, as they are told."""
    return [
        DeviceMemory(place.device, place.name, place.free, place.need.total, place.fits, place.need)
        for place in found.places
    ]


def _prepare(
    model: InstalledModel, info: GGUFInfo, asked: ModelOptions, settings: LlamaCppSettings, base: LoadOptions
) -> tuple[Subject, LoadOptions, int | None]:
    # The setting is for chats: a worker that embeds reads a text whole, and takes memory for its longest.
    n_ctx = asked.n_ctx if asked.n_ctx is not None or base.embeddings else settings.n_ctx
    options = msgspec.structs.replace(
        base,
        n_ctx=n_ctx,
        n_seq=asked.parallel or settings.parallel,
        threads=asked.threads or settings.threads,
        kv_type=asked.kv_type or base.kv_type,
        mmap=base.mmap if asked.mmap is None else asked.mmap,
        repack=base.repack if asked.repack is None else asked.repack,
        speculate=settings.speculate if asked.speculate is None else asked.speculate,
        lora=_adapters(model, asked),
        projector=model.projector or None,
    )
    projector = projector_bytes(read_info(Path(model.projector))) if model.projector else 0
    adapters = sum(Path(adapter.path).stat().st_size for adapter in options.lora)
    return Subject(info, info.tensors, projector, adapters), options, n_ctx


def check_adapters(model: InstalledModel, asked: ModelOptions) -> None:
    """Raises ModelNotFound for an adapter the model does not have."""
    _adapters(model, asked)


def _adapters(model: InstalledModel, asked: ModelOptions) -> list[Lora]:
    known = {adapter.id: adapter.path for adapter in model.adapters}
    uses = asked.adapters or []
    for use in uses:
        if use.id not in known:
            names = ", ".join(known) or "none"
            raise ModelNotFound(f"{model.id} has no adapter {use.id!r}; it has: {names}", known=list(known))
    return [Lora(known[use.id], use.scale) for use in uses]


def _advice(place: Place, options: LoadOptions) -> str:
    ways = []
    if place.need.repacked:
        ways.append("without rewritten weights (repack off)")
    if options.kv_type == "f16" and place.need.cache > place.need.total // 10:
        ways.append("with a smaller KV cache (kv_type q8_0, or a shorter n_ctx)")
    elif options.embeddings:
        ways.append("for shorter texts (n_ctx)")
    if place.device != "cpu":
        ways.append("with fewer layers on the GPU (n_gpu_layers)")
    ways.append("after closing other programs, or with force")
    return "load it " + ", ".join(ways[:-1]) + (", or " if len(ways) > 1 else "") + ways[-1]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

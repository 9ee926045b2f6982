"""LoRA adapters: small files that change what a model says, applied to a whole context."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path

from .context import Context
from .model import Model
from .native import Native
from .options import Lora
from .refusal import Refusal

__all__ = ["apply_adapters"]


def apply_adapters(native: Native, model: Model, context: Context, adapters: Sequence[Lora]) -> None:
    """Load the files and let the context compute with them, all at once (`llama_set_adapters_lora`).

    The model owns them from here on. Raises Refusal("model_load_failed") for one that is not of this model.
    """
    if not adapters:
        return
    c = native.c
    handles = []
    for adapter in adapters:
        if not math.isfinite(adapter.scale):
            raise Refusal("model_load_failed", f"the adapter's scale is {adapter.scale}", reason="adapter")
        handle = c.llama_adapter_lora_init(model.handle, os.fsencode(adapter.path))
        if not handle:
            name = Path(adapter.path).name
            raise Refusal("model_load_failed", f"llama.cpp could not use the adapter {name} with this model")
        handles.append(handle)
    count = len(handles)
    scales = (ctypes.c_float * count)(*(adapter.scale for adapter in adapters))
    if c.llama_set_adapters_lora(context.handle, (c.llama_adapter_lora_p_ctypes * count)(*handles), count, scales) != 0:
        raise Refusal("model_load_failed", "llama.cpp could not apply the adapters", reason="adapter")

"""What a projector is estimated to take, against llama.cpp's own figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.gguf import read_info
from jan_llamacpp.memory.projector import projector_bytes

from .buffers import buffers
from .conftest import MakeModel
from .image_models import write_projector

MIB = 2**20

TOWERS: dict[str, dict[str, Any]] = {
    "mlp, 24 x 24 patches": {"kind": "mlp", "n_vision": 1024, "n_ff": 4096, "patches": 24},
    "mlp, 16 x 16, a narrow middle": {"kind": "mlp", "n_vision": 512, "n_ff": 512, "patches": 16},
    "gemma3, 64 x 64": {"kind": "gemma3", "n_vision": 1152, "n_ff": 4304, "patches": 64},
    "gemma3, 32 x 32, a wide middle": {"kind": "gemma3", "n_vision": 256, "n_ff": 2048, "patches": 32},
    "qwen2vl, any size": {"kind": "qwen2vl_merger", "n_vision": 1152, "n_ff": 4304, "patches": 40},
    "qwen2vl, any size, a narrow middle": {"kind": "qwen2vl_merger", "n_vision": 512, "n_ff": 1408, "patches": 16},
}


@pytest.mark.skipif(sys.platform != "linux", reason="the engine's log is caught in a memory file")
def test_a_picture_takes_the_buffer_that_llama_cpp_says(
    engine_dir: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    paths = {
        name: write_projector(tmp_path / f"{number}.gguf", image_size=14 * tower["patches"], **tower)
        for number, (name, tower) in enumerate(TOWERS.items())
    }
    asked = [{"n_ctx": 512, "projector": str(path)} for path in paths.values()]
    for (name, path), real in zip(paths.items(), buffers(engine_dir, make_model(), asked), strict=True):
        info = read_info(path)
        told = projector_bytes(info) - sum(tensor.size for tensor in info.tensors.values())
        error = told / real["picture"] - 1
        print(f"\n| {name} | {real['picture'] / MIB:.1f} | {told / MIB:.1f} | {error:+.1%} |", end="")
        assert abs(error) < 0.15


def test_a_file_that_says_nothing_of_pictures_is_its_weights(make_model: MakeModel) -> None:
    info = read_info(make_model())
    assert projector_bytes(info) == sum(tensor.size for tensor in info.tensors.values())

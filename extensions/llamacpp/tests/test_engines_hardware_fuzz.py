"""Whatever the tools print, detection ends with a description and a choice, never with an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_llamacpp.engines.builds import choose, known_builds
from jan_llamacpp.engines.hardware import amd, apple, cpu, detect, memory, nvidia, pci, vulkan
from jan_llamacpp.engines.hardware.tools import Answer, Command

from jan_core.types import Hardware

from .machines import NAMES, RecordedTools

PARSERS: dict[str, Callable[[str], Any]] = {
    "cpuinfo": cpu.parse_cpuinfo,
    "sysctl": cpu.parse_sysctl,
    "meminfo": memory.parse_meminfo,
    "vm_stat": memory.parse_vm_stat,
    "uevent": lambda text: pci.parse_uevent(text, "0000:00:00.0"),
    "pnputil": pci.parse_pnputil,
    "nvidia-smi xml": nvidia.parse_xml,
    "nvidia-smi table": nvidia.parse_table,
    "rocminfo": amd.parse_rocminfo,
    "hipInfo": amd.parse_hipinfo,
    "rocm-smi": amd.parse_rocm_smi,
    "amd-smi": amd.parse_amd_smi,
    "vulkaninfo": vulkan.parse_summary,
    "system_profiler": lambda text: apple.parse_displays(text, memory.Memory(2, 1)),
}
KEYS = ["card0", "VRAM Total Memory (B)", "gpu_data", "mem_usage", "total_vram", "used_vram", "value", "unit"]
KEYS += ["SPDisplaysDataType", "_name", "spdisplays_vram", "spdisplays_metalfamily", "sppci_model"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


class DamagedTools(RecordedTools):
    """A machine whose every output, file and folder passes `damage`."""

    def __init__(self, name: str, damage: Callable[[str], str], status: int | None) -> None:
        super().__init__(name)
        self._damage = damage
        self._status = status

    def run(self, command: Command) -> Answer:
        said = super().run(command)
        status = said.status if self._status is None else self._status
        return Answer(status, self._damage(said.output), self._damage(said.error), said.problem)

    def read(self, path: str) -> str:
        return self._damage(super().read(path))


def test_what_can_be_damaged_is_what_was_recorded() -> None:
    assert detect(DamagedTools("rtx4090-ubuntu", lambda text: text, None)) == detect(RecordedTools("rtx4090-ubuntu"))


@pytest.mark.parametrize("parser", PARSERS)
@given(text=st.text() | st.text(alphabet='0123456789:=.,-<>/{}[]"\n GPUgfxkBMi()*'))
def test_any_text_can_be_parsed(parser: str, text: str) -> None:
    PARSERS[parser](text)


@pytest.mark.parametrize("parser", ["rocm-smi", "amd-smi", "system_profiler"])
@given(value=JSON)
def test_any_json_can_be_parsed(parser: str, value: object) -> None:
    import json

    PARSERS[parser](json.dumps(value))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES),
    cuts=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 200), st.text(max_size=6)), max_size=4),
    words=st.lists(st.tuples(st.sampled_from(["MiB", "1", "0", "GPU", "MB", ":", "=", ",", "gfx", "."]),
                             st.sampled_from(["", "-", "9" * 25, "N/A", "\u0661", "\n", "<", "1e9"])), max_size=3),
    status=st.none() | st.sampled_from([0, 1, 2, 9, 139, -9]),
)  # fmt: skip
def test_a_machine_whose_tools_print_something_else_is_still_described(
    name: str, cuts: list[tuple[int, int, str]], words: list[tuple[str, str]], status: int | None
) -> None:
    def damage(text: str) -> str:
        for word, other in words:
            text = text.replace(word, other)
        for start, length, put in cuts:
            text = text[:start] + put + text[start + length :]
        return text

    _check(detect(DamagedTools(name, damage, status)))


def _check(hardware: Hardware) -> None:
    assert hardware.cores >= 1
    assert 0 <= hardware.memory_free <= hardware.memory_total
    for device in hardware.devices:
        assert device.name
        assert 0 <= device.memory_free <= device.memory_total
    builds = known_builds(hardware)
    assert any(not build.refused for build in builds)
    assert choose(builds) is not None

"""The variables that hide GPUs: what an engine is let to see, in which order, and what is said of the rest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_llamacpp.client import LoadOptions, WorkerProcess
from jan_llamacpp.engines.builds import choose, known_builds
from jan_llamacpp.engines.hardware import detect, nvidia
from jan_llamacpp.engines.hardware.tools import Answer, Command
from jan_llamacpp.engines.hardware.visible import Seen, by_cuda, by_hip, by_vulkan
from msgspec.structs import replace

from jan_core.types import Hardware

from .conftest import PATIENCE
from .machines import NAMES, RecordedTools

MIG_CARD = "GPU-c08d91cb-e324-655c-71ba-7570956445bc"
VARIABLES = ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
             "GGML_VK_VISIBLE_DEVICES"]  # fmt: skip


def machine(name: str, **env: str) -> Hardware:
    return detect(RecordedTools(name, **env))


class Edited(RecordedTools):
    """What a pattern matches in the outputs of the tools is another text here."""

    def __init__(self, name: str, pattern: str, text: str, **env: str) -> None:
        super().__init__(name, **env)
        self._pattern, self._text = pattern, text

    def run(self, command: Command) -> Answer:
        said = super().run(command)
        return replace(said, output=re.sub(self._pattern, self._text, said.output, flags=re.DOTALL))


def names(hardware: Hardware, kind: str) -> list[str]:
    return [device.name for device in hardware.devices if device.kind == kind]


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("2,1", [2, 1]),  # the programming guide's examples
        ("0,2,-1,1", [0, 2]),
        ("GPU-89", [1]),
        ("", []),
        ("-1", []),
        ("-0", []),
        ("NoDevFiles", []),
        ("3", []),
        ("9" * 5000, []),
        ("0" * 5000 + "1", [1]),
        ("1,", [1]),
        (",1", []),
        (" 1 , 2gpu,0x1", [1, 2, 0]),
        ("+1", [1]),
        ("\u0661", []),
        ("1,1", []),
        ("GPU-8,GPU-1", []),  # two begin so
        ("GPU-8932f937-d72c,GPU-1,0", [1, 0]),
        ("GPU-1,GPU-1", []),
        ("GPU-1,89", [0]),
        ("0,GPU-89", [0]),
        ("gpu-1", []),
        ("MIG-GPU-1", []),
    ],
)
def test_cuda_shows_what_the_list_names_up_to_the_first_that_it_does_not_know(value: str, places: list[int]) -> None:
    ids = ["GPU-1b", "GPU-8932f937-d72c", "GPU-8ab"]
    assert by_cuda(value, ids, {}).places == places


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("0", [0]),
        ("1,0", [2, 0]),
        ("2", []),
        ("GPU-a", [0]),
        ("MIG-3", [1]),
        ("MIG-GPU-aa/2/1", [1]),
        ("MIG-GPU-aa/2", []),  # two begin so
        ("MIG-3,GPU-bb", [1, 2]),
        ("MIG-5", []),
        ("MIG-", []),
    ],
)
def test_cuda_knows_instances_by_their_own_names_and_by_their_cards(value: str, places: list[int]) -> None:
    ids, instances = ["GPU-aa/2/0", "GPU-aa/2/1", "GPU-bb"], {"GPU-aa/2/0": "", "GPU-aa/2/1": "MIG-3333"}
    assert by_cuda(value, ids, instances).places == places


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("1,0", [1, 0]),
        ("1,1,0", [1, 0]),
        ("0,1,", [0, 1]),
        ("0,,1", [0]),
        (",0", []),
        ("", []),
        ("-1", []),
        ("01", []),
        ("0, 1", [0]),
        ("1x", []),
        ("2", []),
        ("9" * 5000, []),
        ('"1,0"', [1, 0]),
        ("GPU-66", [1]),
        ("GPU-", [0]),
        ("GPU-77,0", []),
    ],
)
def test_hip_wants_numbers_as_they_are_written(value: str, places: list[int]) -> None:
    assert by_hip(value, ["GPU-1f9de", "GPU-66b9d"]).places == places


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("1,0", [1, 0]),
        ("1 0", [1, 0]),
        ("1,,0,", [1, 0]),
        ("0,0", [0]),
        ("+1", [1]),
        ("", []),
        ("0,x,1", [0]),
        ("1x", [1]),
        ("0,2", []),  # llama.cpp gives up
        ("-1", []),
        ("0-1", []),
        ("-0", [0]),
        ("0,99999999999999999999999", [0]),
        ("9" * 5000, []),
    ],
)
def test_vulkan_reads_numbers_until_there_is_none(value: str, places: list[int]) -> None:
    assert by_vulkan(value, 2).places == places


@given(value=st.text() | st.text(alphabet='0123456789,-+ GPUMIabc/"x'), count=st.integers(0, 4))
def test_whatever_a_variable_says_each_device_is_named_once_at_the_most(value: str, count: int) -> None:
    ids = [f"GPU-{n}ab" for n in range(count)]
    seen: list[Seen] = [by_cuda(value, ids, {}), by_hip(value, ids), by_vulkan(value, count)]
    instances = [f"{id}/{n}/0" for id in ids for n in range(2)]
    seen.append(by_cuda(value, instances, {id: f"MIG-{id}" for id in instances[1:]}))
    for each, many in zip(seen, (count, count, count, 2 * count), strict=True):
        assert len(set(each.places)) == len(each.places)
        assert set(each.places) <= set(range(many))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES),
    env=st.dictionaries(
        st.sampled_from(VARIABLES),
        st.text(st.characters(exclude_characters="\0"))
        | st.text(alphabet="0123,-+ GPUMIabc/")
        | st.lists(st.sampled_from(["0", "1", "7", "-1", "GPU-27b", f"MIG-{MIG_CARD}/2/0", "MIG-c7"])).map(",".join),
        min_size=1,
    ),
)  # fmt: skip
def test_with_garbage_in_these_variables_a_machine_is_still_described(name: str, env: dict[str, str]) -> None:
    plain, hardware = machine(name), machine(name, **env)
    kinds = {device.kind for device in hardware.devices}
    assert kinds | set(hardware.absent) == {"cuda", "rocm", "metal", "vulkan"}
    assert not kinds & set(hardware.absent)
    for kind in ("cuda", "rocm", "metal"):  # nothing appears; with Vulkan a renderer can be named
        assert len(names(hardware, kind)) <= len(names(plain, kind))
    for text in (*hardware.absent.values(), *hardware.warnings):
        assert text.isprintable()
        assert len(text) < 1000
    assert choose(known_builds(hardware)) is not None


def test_cards_are_numbered_as_the_list_says_and_the_others_are_told() -> None:
    free = [device.memory_free for device in machine("h100-x8").devices]
    hardware = machine("h100-x8", CUDA_VISIBLE_DEVICES="2,0")
    assert [device.memory_free for device in hardware.devices] == [free[2], free[0]]
    assert hardware.warnings == ["CUDA_VISIBLE_DEVICES=2,0 hides 6 of 8 × NVIDIA H100 80GB HBM3"]
    hardware = machine("h100-x8", CUDA_VISIBLE_DEVICES="0,8,1")
    assert len(hardware.devices) == 1
    assert hardware.warnings == [
        "CUDA_VISIBLE_DEVICES=0,8,1 hides 7 of 8 × NVIDIA H100 80GB HBM3: '8' names none of them"
    ]


@pytest.mark.parametrize("value", ["", "-1", "8", "NoDevFiles"])
def test_a_variable_that_hides_every_card_is_the_reason_why_there_is_none(value: str) -> None:
    hardware = machine("h100-x8", CUDA_VISIBLE_DEVICES=value)
    assert hardware.devices == []
    shown = value or '""'
    hides = f"CUDA_VISIBLE_DEVICES={shown} hides every NVIDIA GPU"
    assert hardware.absent["cuda"] == hides
    assert hardware.warnings == [f"This machine has 8 NVIDIA GPUs that cannot be used: {hides}"]
    assert all(build.refused == hides for build in known_builds(hardware) if build.variant == "cuda")


def test_cards_are_in_the_order_of_the_bus_however_they_are_reported() -> None:
    swapped = Edited("mixed-1060-3090", r"(<gpu .*</gpu>)(\s*)(<gpu .*</gpu>)", r"\3\2\1")
    assert "3090" in nvidia.parse_xml(swapped.run(("nvidia-smi", "-q", "-x")).output).devices[1].name
    assert detect(swapped).devices == machine("mixed-1060-3090").devices


def test_a_machine_without_a_card_does_not_blame_the_variable() -> None:
    assert machine("steam-deck", CUDA_VISIBLE_DEVICES="").absent["cuda"] == "no NVIDIA GPU was found"


def test_a_card_that_is_hidden_from_cuda_is_still_there_for_vulkan_with_its_memory() -> None:
    plain, hidden = machine("rtx4060-plain-desktop"), machine("rtx4060-plain-desktop", CUDA_VISIBLE_DEVICES="")
    assert hidden.devices == [device for device in plain.devices if device.kind == "vulkan"]


def test_numbers_of_unlike_cards_are_certain_only_in_the_order_of_the_bus() -> None:
    sure = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    for env, certain in (
        ({}, True),
        (sure, True),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "1,0", **sure}, True),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-27b94a01,GPU-27b94a00", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
    ):
        hardware = machine("mixed-1060-3090", **env)
        assert any("CUDA numbers unlike GPUs by their speed" in text for text in hardware.warnings) is not certain
    assert machine("h100-x8", CUDA_VISIBLE_DEVICES="1,0,2,3,4,5,6,7").warnings == []


def test_before_driver_570_one_mig_instance_is_all_that_there_is() -> None:
    hardware = machine("a100-mig")
    assert names(hardware, "cuda") == ["NVIDIA A100-SXM4-40GB MIG 0"]
    (warning,) = hardware.warnings
    assert warning.startswith("before driver 570 CUDA shows a process one MIG instance and nothing else")
    assert "not used: the NVIDIA A100-SXM4-40GB MIG 1 (CUDA_VISIBLE_DEVICES=MIG-…" in warning


def test_since_driver_570_one_mig_instance_of_a_card_stands_beside_whole_cards() -> None:
    card = "NVIDIA H100 80GB HBM3"
    hardware = machine("h100-x3-mig")
    assert names(hardware, "cuda") == [f"{card} MIG 0", card, card]
    (warning,) = hardware.warnings
    assert f"one MIG instance of a card; not used: the {card} MIG 1, the {card} MIG 2" in warning


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("0", ["MIG 0"]),
        ("2,0", ["NVIDIA H100 80GB HBM3", "MIG 0"]),
        (MIG_CARD, ["MIG 0"]),
        ("MIG-b4b2228d-6933-5839-bc0e-41ab9edb61c6", ["MIG 2"]),
        ("MIG-b4b2228d", ["MIG 2"]),
        (f"MIG-{MIG_CARD}/2/1", ["MIG 1"]),
        ("MIG-405b,GPU-0aa1", ["MIG 1", "NVIDIA H100 80GB HBM3"]),
        ("MIG-405b,MIG-b4b2", ["MIG 1"]),
        ("MIG-ffff", []),
    ],
)
def test_a_mig_instance_is_chosen_by_its_name(value: str, seen: list[str]) -> None:
    hardware = machine("h100-x3-mig", CUDA_VISIBLE_DEVICES=value)
    assert [name.removeprefix("NVIDIA H100 80GB HBM3 ") for name in names(hardware, "cuda")] == seen


def test_a_card_that_is_to_be_cut_and_is_not_is_told_beside_others() -> None:
    hardware = detect(Edited("h100-x3-mig", r"<mig_device>.*</mig_device>", "None"))
    assert len(hardware.devices) == 2
    assert hardware.warnings == [
        "MIG is enabled on the NVIDIA H100 80GB HBM3 without an instance: create one, or disable MIG"
    ]


def test_instances_whose_names_nobody_tells_are_not_said_to_be_missing() -> None:
    reason = machine("a100-mig", CUDA_VISIBLE_DEVICES="MIG-c788539f").absent["cuda"]
    assert reason.endswith("nvidia-smi does not tell the UUIDs of its MIG instances")


def test_an_instance_whose_name_is_in_the_report_needs_no_listing() -> None:
    report = r"(<index>1</index>)"
    tools = Edited("a100-mig", report, r"\1<uuid>MIG-c788539f</uuid>", CUDA_VISIBLE_DEVICES="MIG-c788539f")
    assert [device.name[-5:] for device in detect(tools).devices] == ["MIG 1"]


def test_nvidia_smi_is_asked_for_instances_only_where_one_is_named() -> None:
    listing = ("nvidia-smi", "-L")
    for value, asked in (("MIG-c788539f", True), ("0", False)):
        tools = RecordedTools("h100-x3-mig", CUDA_VISIBLE_DEVICES=value)
        detect(tools)
        assert (listing in tools.asked) is asked


def test_hip_obeys_its_own_variable_before_cudas() -> None:
    first, second = (device.id for device in machine("mi300x-rocm6").devices)
    for env, ids in (
        ({"HIP_VISIBLE_DEVICES": "1,0"}, [second, first]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [second]),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, [first]),
        ({"HIP_VISIBLE_DEVICES": f"{second}"}, [second]),
        ({"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "1"}, []),
    ):
        assert [device.id for device in machine("mi300x-rocm6", **env).devices] == ids
    assert (
        "HIP_VISIBLE_DEVICES=1 hides 1 of 2 × AMD Instinct MI300X"
        in machine("mi300x-rocm6", HIP_VISIBLE_DEVICES="1").warnings
    )
    assert machine("mi300x-rocm6", HIP_VISIBLE_DEVICES="").absent["rocm"] == (
        'HIP_VISIBLE_DEVICES="" hides every AMD GPU'
    )


class FilteredByRocm(RecordedTools):
    """rocminfo obeys ROCR_VISIBLE_DEVICES itself: here it is left with the agents in `kept`."""

    def __init__(self, name: str, kept: list[int], value: str) -> None:
        super().__init__(name, ROCR_VISIBLE_DEVICES=value)
        self._kept = kept

    def run(self, command: Command) -> Answer:
        said = super().run(command)
        if command != ("rocminfo",):
            return said
        line = "*******                  \nAgent "
        start, processor, *gpus = said.output.split(line)
        return Answer(0, line.join([start, processor, *(f"{gpus[place]}\n" for place in self._kept)]))


def test_what_rocm_hides_itself_is_not_hidden_twice_and_its_memory_is_not_mistaken() -> None:
    first, second = machine("mi300x-rocm6").devices
    swapped = detect(FilteredByRocm("mi300x-rocm6", [1, 0], "1,0"))
    assert [device.id for device in swapped.devices] == [second.id, first.id]
    assert [device.memory_free for device in swapped.devices] == [0, 0]  # rocm-smi counts otherwise: not told
    one = detect(FilteredByRocm("mi300x-rocm6", [1], "1"))
    assert [device.id for device in one.devices] == [second.id]
    assert one.warnings == ["with ROCR_VISIBLE_DEVICES=1 ROCm tells of 1 of 2 AMD GPUs"]
    none = detect(FilteredByRocm("mi300x-rocm6", [], ""))
    assert none.absent["rocm"] == 'ROCm tells of no GPU that ROCR_VISIBLE_DEVICES="" lets it use'


def test_llama_cpps_own_variable_hides_from_vulkan_alone() -> None:
    plain = machine("optimus-laptop-no-runtime")
    intel, nvidia = (device for device in plain.devices if device.kind == "vulkan")
    for value, left in (("1", [nvidia.name]), ("1,0", [nvidia.name, intel.name]), ("", []), ("3", [])):
        hardware = machine("optimus-laptop-no-runtime", GGML_VK_VISIBLE_DEVICES=value)
        assert names(hardware, "vulkan") == left
        assert names(hardware, "cuda") == names(plain, "cuda")
    hardware = machine("optimus-laptop-no-runtime", GGML_VK_VISIBLE_DEVICES="1")
    assert hardware.warnings == [f"GGML_VK_VISIBLE_DEVICES=1 hides the {intel.name}"]
    reason = machine("optimus-laptop-no-runtime", GGML_VK_VISIBLE_DEVICES="3").absent["vulkan"]
    assert reason.endswith("hides every Vulkan device: there is no device 3, and llama.cpp then uses none")


def test_cards_that_nothing_tells_apart_are_counted_each() -> None:
    block = "{}:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n\tdeviceName = Old\n\tapiVersion = 1.2.1\n"

    class Twins(RecordedTools):
        def run(self, command: Command) -> Answer:
            return Answer(0, block.format("GPU0") + block.format("GPU1"))

    for value, count in (("1,0", 2), ("1", 1)):
        assert len(detect(Twins("vm-llvmpipe", GGML_VK_VISIBLE_DEVICES=value)).devices) == count
    assert len(detect(Twins("vm-llvmpipe")).devices) == 2


def test_a_renderer_that_is_named_is_a_device_but_none_to_be_chosen() -> None:
    hardware = machine("vm-llvmpipe", GGML_VK_VISIBLE_DEVICES="0")
    (renderer,) = hardware.devices
    assert renderer.name.startswith("llvmpipe")
    assert renderer.integrated
    choice = choose(known_builds(hardware))
    assert choice is not None
    assert choice.build.startswith("cpu-")


def test_without_vulkans_list_a_number_is_not_guessed_silently() -> None:
    name = "rtx4060-plain-desktop"
    assert names(machine(name, GGML_VK_VISIBLE_DEVICES="0"), "vulkan")
    assert "told by vulkaninfo alone" in machine(name, GGML_VK_VISIBLE_DEVICES="1").absent["vulkan"]
    assert machine(name, GGML_VK_VISIBLE_DEVICES="").absent["vulkan"].endswith("hides every Vulkan device")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("env", "order"),
    [
        ({}, "PCI_BUS_ID"),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "FASTEST_FIRST"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ""),
    ],
)
async def test_a_worker_numbers_cards_as_they_are_listed_unless_a_person_numbered_them(
    engine_dir: Path, babble: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], order: str
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with anyio.fail_after(PATIENCE):
        worker = await WorkerProcess.start(engine_dir, babble, LoadOptions(threads=1))
    try:
        lines = (await anyio.Path(f"/proc/{worker.pid}/environ").read_text()).split("\0")
        told = dict(line.split("=", 1) for line in lines if line)
        assert told.get("CUDA_DEVICE_ORDER", "") == order
        assert told.get("CUDA_VISIBLE_DEVICES") == env.get("CUDA_VISIBLE_DEVICES")
    finally:
        await worker.close()

"""What detection makes of many machines, out of what their tools and files say (`recorded/`)."""

from __future__ import annotations

import os
import time

import pytest
from jan_llamacpp.engines.builds import ENGINE_VERSION, choose, known_builds
from jan_llamacpp.engines.hardware import Detector, detect
from jan_llamacpp.engines.hardware.cpu import parse_cpuinfo
from jan_llamacpp.engines.hardware.memory import Memory, parse_meminfo

from jan_core.types import Hardware

from .machines import NAMES, RecordedTools

GIB = 2**30

# machine: kinds of its devices, the build that is chosen, and its index
CHOSEN = {
    "a100-mig": ("cuda", "cuda11", "cu118"),
    "a100-mig-empty": ("", "cpu", "cpu"),
    "amd-module-missing": ("", "cpu", "cpu"),
    "amd-no-permission": ("", "cpu", "cpu"),
    "amd-nothing-installed": ("", "cpu", "cpu"),
    "arc-a770": ("vulkan", "vulkan", "vulkan"),
    "celeron-no-avx2": ("vulkan", "cpu", ""),
    "dgx-spark": ("cuda", "cpu", "cpu"),
    "docker-without-gpu": ("", "cpu", "cpu"),
    "driver-updated-while-running": ("", "cpu", "cpu"),
    "gpu-lost": ("", "cpu", "cpu"),
    "gt710-driver470": ("cuda", "cpu", "cpu"),
    "gtx1060-new-driver": ("cuda", "cuda12", "cu125"),
    "gtx1080-driver390": ("cuda", "cpu", "cpu"),
    "gtx1080-driver470": ("cuda", "cuda11", "cu118"),
    "gtx970-maxwell": ("cuda", "cpu", "cpu"),
    "h100-x3-mig": ("cuda cuda cuda", "cuda12", "cu125"),
    "h100-x8": ("cuda " * 7 + "cuda", "cuda12", "cu125"),
    "intel-mac-radeon": ("metal metal", "cpu", ""),
    "kernel-module-not-loaded": ("", "cpu", "cpu"),
    "kubernetes-t4": ("cuda", "cuda12", "cu122"),
    "m1-air-8gb": ("metal", "metal", "metal"),
    "m2-wired-limit": ("metal", "metal", "metal"),
    "m3-max-64gb": ("metal", "metal", "metal"),
    "macos-vm": ("", "cpu", "cpu"),
    "mi300x-amd-smi": ("rocm", "rocm", "rocm72"),
    "mi300x-rocm6": ("rocm rocm", "cpu", "cpu"),
    "mixed-1060-3090": ("cuda cuda", "cuda12", "cu125"),
    "no-devices": ("", "cpu", "cpu"),
    "nouveau": ("", "cpu", "cpu"),
    "nvidia-smi-garbage": ("", "cpu", "cpu"),
    "nvidia-smi-hangs": ("", "cpu", "cpu"),
    "nvidia-smi-report-cut": ("cuda", "cuda12", "cu124"),
    "old-vulkan": ("vulkan", "cpu", "cpu"),
    "optimus-laptop-no-runtime": ("cuda vulkan vulkan", "cuda12", "cu122"),
    "passthrough": ("vulkan", "cpu", "cpu"),
    "radeon-780m-laptop": ("rocm vulkan", "cpu", "cpu"),
    "raspberry-pi-5": ("vulkan", "cpu", "cpu"),
    "rosetta": ("metal", "cpu", ""),
    "rtx2070-nothing-else": ("cuda", "cuda12", "cu121"),
    "rtx3060-full": ("cuda", "cpu", "cpu"),
    "rtx4060-plain-desktop": ("cuda vulkan", "cuda12", "cu125"),
    "rtx4090-ubuntu": ("cuda", "cuda12", "cu124"),
    "rtx5090-cuda13": ("cuda", "cuda13", "cu130"),
    "rx580-two-vulkan-drivers": ("vulkan", "vulkan", "vulkan"),
    "rx6600-override": ("rocm", "rocm", "rocm72"),
    "rx6600-rocm-vulkan": ("rocm vulkan", "vulkan", "vulkan"),
    "rx7900xtx-rocm7": ("rocm", "rocm", "rocm72"),
    "rx9070-no-vulkaninfo": ("vulkan", "vulkan", "vulkan"),
    "server-cgroup-v1": ("", "cpu", ""),
    "steam-deck": ("vulkan", "cpu", "cpu"),
    "system-profiler-hangs": ("", "cpu", "cpu"),
    "systemd-service-limits": ("", "cpu", "cpu"),
    "vm-llvmpipe": ("", "cpu", "cpu"),
    "vulkan-no-driver": ("", "cpu", "cpu"),
    "windows-arm": ("", "cpu", ""),
    "windows-gtx1650-no-runtime": ("cuda vulkan", "cuda12", "cu124"),
    "windows-no-driver": ("", "cpu", "cpu"),
    "windows-rtx4070": ("cuda", "cuda12", "cu124"),
    "windows-rx7900-hip": ("rocm", "rocm", "hip-radeon"),
    "wsl2-blocked": ("", "cpu", "cpu"),
    "wsl2-rtx3080": ("cuda", "cuda12", "cu124"),
}


def machine(name: str) -> Hardware:
    return detect(RecordedTools(name))


def test_every_recorded_machine_has_an_expectation() -> None:
    assert sorted(CHOSEN) == NAMES


@pytest.mark.parametrize("name", CHOSEN)
def test_a_machine_gets_the_build_that_runs_on_it(name: str) -> None:
    kinds, build, index = CHOSEN[name]
    hardware = machine(name)
    assert " ".join(device.kind for device in hardware.devices) == kinds
    builds = {each.id: each for each in known_builds(hardware, base="https://wheels.test/")}
    choice = choose(builds.values())
    assert choice is not None
    assert choice.build == f"{build}-{ENGINE_VERSION}"
    assert builds[choice.build].index == (f"https://wheels.test/{index}" if index else "")
    for each in builds.values():
        assert each.refused or each.note
        assert not (each.refused and (each.note or each.doubt or each.needs))


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_told_of_a_machine_is_consistent(name: str) -> None:
    hardware = machine(name)
    assert hardware.cpu
    assert 1 <= hardware.cores <= hardware.threads
    assert hardware.memory_free <= hardware.memory_total
    kinds = {device.kind for device in hardware.devices}
    assert kinds | set(hardware.absent) == {"cuda", "rocm", "metal", "vulkan"}
    assert not kinds & set(hardware.absent)
    assert all(hardware.absent.values())
    for device in hardware.devices:
        assert device.name == device.name.strip() != ""
        assert 0 <= device.memory_free <= device.memory_total


# machine: what is said of a GPU that is there and cannot be used
WARNED = {
    "a100-mig": "CUDA shows a process one MIG instance and nothing else; not used: the NVIDIA A100-SXM4-40GB MIG 1",
    "a100-mig-empty": "MIG is enabled on the NVIDIA A100-SXM4-40GB without an instance",
    "amd-module-missing": "the amdgpu kernel driver is not loaded",
    "amd-no-permission": "add it to the groups render and video",
    "amd-nothing-installed": "install ROCm, or a Vulkan driver",
    "docker-without-gpu": "this container (docker) was not given it, so start it with --gpus all",
    "driver-updated-while-running": "was updated while it ran: restart the computer",
    "gpu-lost": "the GPU dropped off the bus",
    "h100-x3-mig": "llama.cpp uses one MIG instance of a card; not used: the NVIDIA H100 80GB HBM3 MIG 1",
    "kernel-module-not-loaded": "sign it for Secure Boot",
    "no-devices": "a driver of another generation may be needed",
    "nouveau": "install NVIDIA's own driver instead of nouveau",
    "nvidia-smi-garbage": "nvidia-smi told of no GPU: <html>",
    "nvidia-smi-hangs": "the driver hangs; restart the computer",
    "old-vulkan": "the NVIDIA kernel module runs but nvidia-smi is not installed",
    "rosetta": "a Python for Intel processors on Apple silicon",
    "windows-no-driver": "no NVIDIA driver is installed",
    "wsl2-blocked": "update the NVIDIA driver in Windows",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_that_is_there_and_cannot_be_used_is_said_aloud_and_no_other(name: str) -> None:
    warnings = machine(name).warnings
    if name in WARNED:
        (warning,) = warnings
        assert WARNED[name] in warning
    else:
        assert warnings == []


def test_a_card_of_several_is_told_with_its_own_memory() -> None:
    devices = machine("h100-x8").devices
    assert [device.memory_free // GIB for device in devices] == [20, *[79] * 7]
    assert len({device.id for device in devices}) == 8


def test_a_mig_instance_has_its_own_memory_and_what_its_card_has() -> None:
    (first,) = machine("a100-mig").devices
    assert (first.name, first.memory_total) == ("NVIDIA A100-SXM4-40GB MIG 0", 19968 * 2**20)
    assert (first.driver, first.runtime, first.compute_capability) == ("510.47.03", "11.6", "8.0")


def test_an_old_driver_that_does_not_tell_the_capability_is_helped_by_the_chips_number() -> None:
    assert [device.compute_capability for device in machine("gt710-driver470").devices] == ["3.5"]
    assert [device.compute_capability for device in machine("gtx1080-driver470").devices] == ["6.1"]


def test_a_gpu_without_memory_of_its_own_uses_the_computers() -> None:
    hardware = machine("dgx-spark")
    (device,) = hardware.devices
    assert device.integrated
    assert (device.memory_total, device.memory_free) == (hardware.memory_total, hardware.memory_free)


def test_amd_memory_is_that_of_the_kernel_driver_else_of_the_tools() -> None:
    assert machine("rx7900xtx-rocm7").devices[0].memory_free == 25753026560 - 1287651328
    assert [device.memory_free for device in machine("mi300x-rocm6").devices] == [205844148224, 56141652992]
    assert machine("mi300x-amd-smi").devices[0].memory_free == (196592 - 283) * 2**20


def test_vulkan_memory_is_that_of_the_same_card_by_its_makers_tools() -> None:
    _, integrated, card = machine("optimus-laptop-no-runtime").devices
    assert integrated.integrated
    assert not card.integrated
    assert card.memory_total == 4096 * 2**20


def test_without_vulkaninfo_the_drivers_manifests_tell_which_card_has_vulkan() -> None:
    cuda, inferred = machine("rtx4060-plain-desktop").devices
    assert (inferred.kind, inferred.name, inferred.memory_free) == ("vulkan", cuda.name, cuda.memory_free)
    (amd,) = machine("rx9070-no-vulkaninfo").devices
    assert (amd.name, amd.integrated, amd.memory_total) == ("AMD GPU 1002:7550", False, 17095983104)
    assert machine("passthrough").devices[0].integrated  # Intel's, in the processor


def test_a_card_that_two_vulkan_drivers_offer_is_one_and_a_renderer_is_none() -> None:
    (device,) = machine("rx580-two-vulkan-drivers").devices
    assert device.name == "AMD Radeon RX 580 Series (RADV POLARIS10)"
    assert "only llvmpipe" in machine("vm-llvmpipe").absent["vulkan"]


def test_unified_memory_is_as_much_as_macos_lets_a_gpu_have() -> None:
    totals = [machine(name).devices[0].memory_total for name in ("m1-air-8gb", "m3-max-64gb", "m2-wired-limit")]
    assert totals == [8 * GIB * 2 // 3, 48 * GIB, 20 * GIB]


def test_control_groups_of_both_versions_limit_memory_and_threads() -> None:
    docker = machine("docker-without-gpu")
    assert (docker.memory_total, docker.memory_free, docker.threads) == (8 * GIB, 6 * GIB, 4)
    assert (docker.container, machine("kubernetes-t4").container) == ("docker", "kubernetes")
    old = machine("server-cgroup-v1")
    assert (old.memory_total, old.memory_free, old.threads) == (2 * GIB, 2**31 - (1610612736 - 805306368), 2)


def test_the_tightest_group_above_a_service_counts() -> None:
    service = machine("systemd-service-limits")
    assert (service.memory_total, service.memory_free, service.threads) == (6 * GIB, GIB, 4)


def test_nothing_is_asked_of_tools_that_another_system_has() -> None:
    tools = RecordedTools("m1-air-8gb")
    detect(tools)
    assert {command[0] for command in tools.asked} == {"sysctl", "vm_stat", "system_profiler"}


def test_hyper_threads_are_not_counted_as_cores() -> None:
    text = "".join(
        f"processor\t: {n}\nmodel name\t: Imaginary\nphysical id\t: 0\ncore id\t\t: {n // 2}\nflags\t\t: sse2 avx2\n\n"
        for n in range(4)
    )
    found = parse_cpuinfo(text)
    assert (found.name, found.features, found.cores) == ("Imaginary", ["avx2", "sse2"], 2)


@pytest.mark.parametrize("text", ["", "MemTotal:\n", "MemTotal: x kB\nMemAvailable: -1 kB\n", "\x00:::"])
def test_an_odd_proc_file_gives_zeros(text: str) -> None:
    assert parse_meminfo(text) == Memory(0, 0)
    assert parse_cpuinfo(text).cores == 0


def test_meminfo_is_in_bytes_and_an_old_kernel_tells_free_and_cached() -> None:
    assert parse_meminfo("MemTotal:  16 kB\nMemFree: 1 kB\nMemAvailable:   8 kB\n") == Memory(16384, 8192)
    assert parse_meminfo("MemTotal:  16 kB\nMemFree: 1 kB\nCached:   2 kB\n") == Memory(16384, 3072)


def test_this_machine_is_described() -> None:
    found = detect()
    assert 1 <= found.cores <= found.threads <= (os.cpu_count() or 1)
    assert 0 < found.memory_free <= found.memory_total
    assert found.os in ("linux", "macos", "windows")
    assert found.cpu


def test_a_detection_is_kept_for_a_while_and_no_longer() -> None:
    tools = RecordedTools("rtx4090-ubuntu")
    now = 100.0
    detector = Detector(tools, max_age=15, clock=lambda: now)
    first = detector.hardware()
    asked = len(tools.asked)
    now += 15
    assert detector.hardware() is first
    assert len(tools.asked) == asked
    now += 0.1
    assert detector.hardware() is not first
    assert len(tools.asked) == 2 * asked


def test_a_fresh_look_is_a_new_one() -> None:
    detector = Detector(RecordedTools("rtx4090-ubuntu"))
    assert detector.hardware(fresh=True) is not detector.hardware(fresh=True)


def test_detection_without_gpu_tools_takes_a_millisecond_or_so() -> None:
    """Ten times that is allowed: the machine may be busy. The best of several is what it takes."""
    tools = RecordedTools("systemd-service-limits")
    took = []
    for _ in range(20):
        began = time.perf_counter()
        detect(tools)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.01

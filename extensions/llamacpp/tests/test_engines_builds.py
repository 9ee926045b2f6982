"""Which builds a machine can run, which of them is taken, and what is said of the others."""

from __future__ import annotations

import pytest
from jan_llamacpp.engines.builds import ENGINE_VERSION, ROOM, choose, known_builds, named
from jan_llamacpp.engines.hardware import detect
from jan_llamacpp.engines.prebuilt import CUDA, INDEXES, numbers

from jan_core.types import Device, EngineBuild, Hardware

from .machines import RecordedTools

GIB = 2**30
MODERN = ["avx", "avx2", "bmi2", "f16c", "fma", "sse4_2"]
LIBRARIES = [f"lib{name}.so.{n}" for n in (11, 12, 13) for name in ("cudart", "cublas")] + ["libcudart.so.11.0"]


def machine(*devices: Device, os: str = "linux", arch: str = "x86_64", features: list[str] = MODERN) -> Hardware:
    libraries = [*LIBRARIES, *[f"{name}64_{n}.dll" for name in ("cudart", "cublas") for n in (11, 110, 12, 13)]]
    return Hardware(os, arch, "cpu", 2, 4, features, 8 * GIB, 4 * GIB, devices=list(devices), libraries=libraries)


def nvidia(capability: str, driver: str, cuda: str, *, name: str = "card", free: int = 8 * GIB) -> Device:
    return Device("cuda", name, 8 * GIB, free, driver=driver, runtime=cuda, compute_capability=capability)


def by_kind(hardware: Hardware) -> dict[str, EngineBuild]:
    return {build.id.removesuffix(f"-{ENGINE_VERSION}"): build for build in known_builds(hardware)}


def chosen(hardware: Hardware) -> str:
    choice = choose(known_builds(hardware))
    assert choice is not None
    return choice.build.removesuffix(f"-{ENGINE_VERSION}")


def test_without_a_gpu_every_build_but_the_cpus_is_refused_with_its_reason() -> None:
    builds = by_kind(machine())
    assert list(builds) == ["cpu", "cuda13", "cuda12", "cuda11", "metal", "rocm", "vulkan"]
    assert [kind for kind, build in builds.items() if not build.refused] == ["cpu"]
    assert builds["cuda12"].refused == "no NVIDIA GPU was found"


def test_a_processor_without_an_engine_has_no_usable_build() -> None:
    builds = known_builds(machine(arch="riscv64"))
    assert all("riscv64" in build.refused for build in builds)
    assert choose(builds) is None


@pytest.mark.parametrize(
    ("capability", "driver", "cuda", "os", "build", "index"),
    [
        ("8.9", "535.54.03", "12.2", "linux", "cuda12", "cu122"),
        ("8.9", "525.105.17", "12.0", "linux", "cuda12", "cu121"),  # within a generation an older driver does
        ("8.9", "537.13", "12.2", "windows", "cuda12", "cu124"),  # there are no wheels of 12.1 to 12.3 for Windows
        ("8.6", "520.61.05", "11.8", "linux", "cuda11", "cu118"),
        ("8.6", "580.65.06", "13.0", "linux", "cuda13", "cu130"),
        ("8.6", "595.10", "13.2", "linux", "cuda13", "cu132"),
        ("8.6", "590.44", "13.1", "windows", "cuda13", "cu130"),
        ("7.0", "580.65.06", "13.0", "linux", "cuda12", "cu125"),  # CUDA 13 has dropped Volta
        ("6.1", "580.95.05", "13.0", "windows", "cuda12", "cu125"),
        ("12.0", "570.86.16", "12.8", "linux", "cuda12", "cu125"),  # the driver compiles for it at first use
        ("", "550.54.14", "12.4", "linux", "cuda12", "cu124"),  # unknown is no reason against
    ],
)
def test_the_cuda_build_fits_driver_card_and_system(
    capability: str, driver: str, cuda: str, os: str, build: str, index: str
) -> None:
    hardware = machine(nvidia(capability, driver, cuda), os=os)
    assert chosen(hardware) == build
    assert by_kind(hardware)[build].index == f"{INDEXES}/{index}"


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed() -> None:
    refused = by_kind(machine(nvidia("7.5", "470.57.02", "11.4")))["cuda12"].refused
    assert refused == "the driver 470.57.02 offers CUDA 11.4; this build needs 525.60.13 or newer: update the driver"


def test_driver_versions_are_compared_as_numbers() -> None:
    assert not by_kind(machine(nvidia("8.6", "525.105.17", "12.0")))["cuda12"].refused
    assert by_kind(machine(nvidia("8.6", "525.60.9", "12.0")))["cuda12"].refused
    assert numbers("9.0") < numbers("12.0")


@pytest.mark.parametrize(("capability", "usable"), [("3.0", ""), ("3.5", "11"), ("5.2", "11 12"), ("7.5", "11 12 13")])
def test_a_card_is_refused_by_the_generations_that_have_dropped_it(capability: str, usable: str) -> None:
    builds = by_kind(machine(nvidia(capability, "580.95.05", "13.0")))
    assert [n for n in ("11", "12", "13") if not builds[f"cuda{n}"].refused] == usable.split()
    if usable != "11 12 13":
        assert f"is {capability}; CUDA 13 needs 7.5 or newer" in builds["cuda13"].refused


@pytest.mark.parametrize("capability", ["9.0", "10.0", "12.0"])
def test_a_card_that_is_newer_than_cuda_11_is_refused_by_it(capability: str) -> None:
    assert "CUDA 11 is too old" in by_kind(machine(nvidia(capability, "580.95.05", "13.0")))["cuda11"].refused


def test_a_new_card_with_the_oldest_driver_of_a_generation_needs_a_compiler() -> None:
    build = by_kind(machine(nvidia("10.0", "525.60.13", "12.0")))["cuda12"]
    assert (build.index, build.refused) == ("", "")
    assert "cannot prepare a prebuilt wheel for so new a card" in build.needs


def test_a_card_older_than_the_wheels_is_not_given_one() -> None:
    build = by_kind(machine(nvidia("5.2", "550.54.14", "12.4")))["cuda12"]
    assert (build.index, build.refused) == ("", "")
    assert "from compute capability 6.0 on: it can be compiled here with the CUDA 12 toolkit" in build.needs


def test_two_cards_get_the_build_that_serves_both() -> None:
    hardware = machine(nvidia("6.1", "580.95.05", "13.0", name="old"), nvidia("8.6", "580.95.05", "13.0", name="new"))
    assert chosen(hardware) == "cuda12"
    assert "has no code for the old" in by_kind(hardware)["cuda13"].doubt


def test_a_full_gpu_loses_against_the_processor_and_it_is_said() -> None:
    full = nvidia("8.6", "550.54.14", "12.4", name="RTX", free=ROOM - 1)
    choice = choose(known_builds(machine(full)))
    assert choice is not None
    assert choice.build == f"cpu-{ENGINE_VERSION}"
    assert "only 1.0 GiB of the 8.0 GiB of the RTX are free" in choice.reason
    assert chosen(machine(full, nvidia("8.6", "550.54.14", "12.4"))) == "cuda12"  # another has room
    assert chosen(machine(nvidia("8.6", "550.54.14", "12.4", free=ROOM))) == "cuda12"


@pytest.mark.parametrize(
    ("cuda", "build", "packages"),
    [
        ("11.4", "cuda11", ["nvidia-cuda-runtime-cu11==11.8.*", "nvidia-cublas-cu11==11.11.*"]),
        ("12.4", "cuda12", ["nvidia-cuda-runtime-cu12==12.4.*", "nvidia-cublas-cu12==12.4.*"]),
        ("13.0", "cuda13", ["nvidia-cuda-runtime==13.*", "nvidia-cublas==13.*"]),
    ],
)
def test_a_wheel_whose_runtime_is_missing_takes_it_from_nvidias_packages(
    cuda: str, build: str, packages: list[str]
) -> None:
    driver = {"11.4": "470.57.02", "12.4": "550.54.14", "13.0": "580.65.06"}[cuda]
    hardware = machine(nvidia("8.6", driver, cuda))
    assert by_kind(hardware)[build].packages == []
    for half in (["libcudart.so.12"], []):
        hardware.libraries = half
        assert by_kind(hardware)[build].packages == packages
        assert chosen(hardware) == build


def test_a_build_that_needs_a_person_waits_until_it_is_installed() -> None:
    maxwell = nvidia("5.2", "550.54.14", "12.4")
    hardware = machine(maxwell, Device("vulkan", "card", 8 * GIB, 8 * GIB, runtime="1.3.1"))
    assert chosen(hardware) == "vulkan"
    builds = known_builds(hardware)
    for build in builds:
        build.installed = build.id == f"cuda12-{ENGINE_VERSION}"  # it was compiled, and checked
    choice = choose(builds)
    assert choice is not None
    assert choice.build == f"cuda12-{ENGINE_VERSION}"


def test_a_gpu_comes_before_the_processor_even_when_only_that_is_installed() -> None:
    builds = known_builds(machine(nvidia("8.6", "550.54.14", "12.4")))
    builds[0].installed = True
    choice = choose(builds)
    assert choice is not None
    assert choice.build == f"cuda12-{ENGINE_VERSION}"
    assert choice.reason == (
        "card (8.0 GiB of 8.0 GiB free, driver 550.54.14 offers CUDA 12.4, compute capability 8.6); "
        "to be installed at first use"
    )


def test_an_installed_gpu_build_comes_before_a_newer_kind_of_it() -> None:
    builds = known_builds(machine(nvidia("8.6", "580.95.05", "13.0")))
    for build in builds:
        build.installed = build.id.startswith("cuda12")
    choice = choose(builds)
    assert choice is not None
    assert choice.build == f"cuda12-{ENGINE_VERSION}"


@pytest.mark.parametrize("missing", MODERN[1:5])
def test_a_processor_without_the_wheels_instructions_compiles_its_engine(missing: str) -> None:
    hardware = machine(
        Device("vulkan", "card", 8 * GIB, 8 * GIB), features=[name for name in MODERN if name != missing]
    )
    builds = by_kind(hardware)
    assert builds["cpu"].index == ""
    assert f"needs {missing.upper()}, which this processor does not have" in builds["cpu"].note
    assert "it can be compiled here with the Vulkan SDK" in builds["vulkan"].needs
    assert chosen(hardware) == "cpu"


def test_what_a_processor_has_is_not_asked_where_the_system_does_not_tell() -> None:
    assert by_kind(machine(features=[]))["cpu"].index == f"{INDEXES}/cpu"
    assert by_kind(machine(features=["asimd"], arch="arm64"))["cpu"].index == f"{INDEXES}/cpu"


def test_amd_cards_get_the_rocm_wheel_that_has_code_for_them() -> None:
    card = Device("rocm", "Radeon", 8 * GIB, 8 * GIB, compute_capability="gfx1032")
    assert "no prebuilt wheel has code for the Radeon (gfx1032)" in by_kind(machine(card))["rocm"].needs
    windows = machine(card, os="windows")
    assert by_kind(windows)["rocm"].index == f"{INDEXES}/hip-radeon"
    assert chosen(windows) == "rocm"


def test_every_index_is_one_that_the_project_has() -> None:
    published = {"cu118", "cu121", "cu122", "cu123", "cu124", "cu125", "cu130", "cu132"}
    assert {toolkit.index for generation in CUDA for toolkit in generation.toolkits} == published


def test_another_folder_of_indexes_takes_the_place_of_the_projects_own() -> None:
    hardware = detect(RecordedTools("rtx4090-ubuntu"))
    (build,) = [build for build in known_builds(hardware, base="http://127.0.0.1:1/whl/") if build.id[:6] == "cuda12"]
    assert build.index == "http://127.0.0.1:1/whl/cu124"


def test_a_build_can_be_meant_by_id_kind_or_variant() -> None:
    builds = known_builds(machine(nvidia("8.6", "550.54.14", "12.4")))
    ids = {name: [build.id for build in named(builds, name)] for name in ("cuda", "cuda12", f"cuda12-{ENGINE_VERSION}")}
    assert ids["cuda"] == [f"cuda{n}-{ENGINE_VERSION}" for n in (13, 12, 11)]
    assert ids["cuda12"] == ids[f"cuda12-{ENGINE_VERSION}"] == [f"cuda12-{ENGINE_VERSION}"]
    assert named(builds, "cud") == named(builds, "") == []

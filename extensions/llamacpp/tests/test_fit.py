"""What is chosen for a model from the memory that is free: contexts and layers on machines of many sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from jan_llamacpp.errors import ModelNotFound
from jan_llamacpp.failures import OutOfMemory
from jan_llamacpp.gguf import read_model
from jan_llamacpp.loading import check_fit, estimate, merged, plan
from jan_llamacpp.memory.fit import Subject, fit, gpus_of, largest_context
from jan_llamacpp.memory.room import Room, given_back, left_by
from jan_llamacpp.model_shapes import AdapterUse, ModelOptions
from jan_llamacpp.settings import LlamaCppSettings
from jan_llamacpp.worker.options import LoadOptions

from jan_core.types import Device, Hardware, InstalledModel

from .model_files import Shape, write

GIB = 2**30
LAYERS = 33


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama 3 8B in Q4_0: 4.3 GiB of weights, 128 KiB of cache for a token."""
    shape = Shape(n_embd=4096, n_layer=32, n_head=32, n_head_kv=8, head=128, n_ff=14336, n_vocab=128_256)
    return write(tmp_path_factory.mktemp("fit") / "8b.gguf", shape)


@pytest.fixture(scope="module")
def subject(path: Path) -> Subject:
    info = read_model(path)
    return Subject(info, info.tensors)


def machine(free: float, *gpus: float, integrated: bool = False) -> Hardware:
    """A computer with so many GiB free, and on its GPUs."""
    devices = [
        Device("cuda", f"GPU {n}", 24 * GIB, int(each * GIB), integrated=integrated) for n, each in enumerate(gpus)
    ]
    return Hardware("linux", "x86_64", "a processor", 8, 16, ["avx2"], 64 * GIB, int(free * GIB), devices)


def chosen(subject: Subject, hardware: Hardware, **more: Any) -> tuple[bool, int | None, int]:
    found = fit(subject, LoadOptions(), hardware, variant="cuda", **more)
    return found.fits, found.options.n_ctx, found.options.n_gpu_layers


def test_with_room_the_usual_context_is_taken_and_nothing_is_said(subject: Subject) -> None:
    found = fit(subject, LoadOptions(), machine(16))
    assert (found.fits, found.options.n_ctx, found.reasons) == (True, 8192, [])


def test_with_less_room_the_context_is_the_longest_that_fits(subject: Subject) -> None:
    found = fit(subject, LoadOptions(), machine(5.5))
    assert found.fits
    assert found.options.n_ctx is not None
    assert 4096 < found.options.n_ctx < 8192
    assert found.options.n_ctx % 256 == 0
    assert found.reasons == [
        f"a context of {found.options.n_ctx} tokens instead of 8192: more does not fit the free memory"
    ]
    assert not fit(subject, LoadOptions(), machine(5.5), n_ctx=found.options.n_ctx + 512).fits


def test_what_a_person_asked_for_is_kept_whether_it_fits_or_not(subject: Subject) -> None:
    assert chosen(subject, machine(5.5), n_ctx=8192) == (False, 8192, -1)
    assert chosen(subject, machine(16, 4), gpu_layers=33) == (False, 8192, 33)
    assert chosen(subject, machine(16, 24), gpu_layers=5) == (True, 8192, 5)
    assert chosen(subject, machine(16, 24), gpu_layers=-1, n_ctx=1024) == (True, 1024, LAYERS)


def test_a_gpu_with_room_gets_all_layers(subject: Subject) -> None:
    assert chosen(subject, machine(4, 24)) == (True, 8192, LAYERS)


def test_a_gpu_gets_as_many_layers_as_it_holds(subject: Subject) -> None:
    before = -1
    for free in (0.3, 1, 2, 3, 4, 5):
        fits, n_ctx, count = chosen(subject, machine(16, free))
        assert (fits, n_ctx) == (True, 8192)
        assert before <= count < LAYERS
        before = count
        if count < LAYERS:
            assert not fit(
                subject, LoadOptions(), machine(16, free), variant="cuda", gpu_layers=count + 1, n_ctx=8192
            ).fits
    assert before > 20


def test_a_shorter_context_is_better_than_layers_on_the_processor(subject: Subject) -> None:
    found = fit(subject, LoadOptions(), machine(16, 5.4), variant="cuda")
    assert (found.fits, found.options.n_gpu_layers) == (True, LAYERS)
    assert 4096 <= (found.options.n_ctx or 0) < 8192


def test_two_gpus_share_the_layers_by_what_is_free(subject: Subject) -> None:
    found = fit(subject, LoadOptions(), machine(16, 6, 2), variant="cuda")
    host, first, second = found.places
    assert found.fits
    assert first.need.weights > 2 * second.need.weights
    assert (first.device, second.device, host.device) == ("cuda0", "cuda1", "cpu")


def test_a_gpu_that_shares_the_main_memory_is_not_counted_twice(subject: Subject) -> None:
    assert chosen(subject, machine(4, 4, integrated=True), n_ctx=8192)[0] is False
    assert chosen(subject, machine(4, 4), n_ctx=8192)[0] is True


def test_an_integrated_gpu_is_used_only_where_there_is_no_other(subject: Subject) -> None:
    small = Device("cuda", "in the processor", 32 * GIB, 16 * GIB, integrated=True)
    large = Device("cuda", "a card", 24 * GIB, 20 * GIB)
    silent = Device("cuda", "a card whose driver tells nothing", 24 * GIB, 0)
    for devices, names in (
        ([small, large], ["a card"]),
        ([large, small], ["a card"]),
        ([small, small], ["in the processor"] * 2),
        ([small, silent], []),  # llama.cpp uses the card, whatever it has
        ([msgspec.structs.replace(large, kind="vulkan"), small], ["in the processor"]),
    ):
        hardware = msgspec.structs.replace(machine(16), devices=devices)
        assert [gpu.name for gpu in gpus_of(hardware, "cuda").values()] == names
        assert [place.name for place in fit(subject, LoadOptions(), hardware, variant="cuda").places[1:]] == names


def test_a_gpu_keeps_the_number_it_has_for_llama_cpp(subject: Subject) -> None:
    """Those that are not used, or not counted on, have theirs."""
    small = Device("vulkan", "in the processor", 32 * GIB, 16 * GIB, integrated=True)
    silent = Device("vulkan", "a card whose driver tells nothing", 24 * GIB, 0)
    large = Device("vulkan", "a card", 24 * GIB, 20 * GIB)
    hardware = msgspec.structs.replace(machine(16, 4), devices=[*machine(16, 4).devices, small, silent, large])
    places = fit(subject, LoadOptions(), hardware, variant="vulkan").places
    assert [(place.device, place.name) for place in places[1:]] == [("vulkan2", "a card")]


def test_gpus_of_another_kind_than_the_engine_are_not_counted(subject: Subject) -> None:
    found = fit(subject, LoadOptions(), machine(16, 24), variant="cpu")
    assert [place.device for place in found.places] == ["cpu"]


def test_a_projector_is_charged_to_the_first_gpu_where_there_is_one(subject: Subject) -> None:
    with_pictures = msgspec.structs.replace(subject, projector=GIB)
    [place] = fit(with_pictures, LoadOptions(), machine(16)).places
    assert place.need.projector == GIB
    found = fit(with_pictures, LoadOptions(), machine(16, 8, 8), variant="cuda")
    assert [place.need.projector for place in found.places] == [0, GIB, 0]
    none_there = fit(with_pictures, LoadOptions(), machine(16, 8, 8), variant="cuda", gpu_layers=0)
    assert [place.need.projector for place in none_there.places] == [0, GIB, 0]
    assert none_there.places[1].need.base > 0 == none_there.places[2].need.base
    assert not fit(with_pictures, LoadOptions(), machine(16, 1), variant="cuda", gpu_layers=0).fits


def test_idle_conversations_get_at_most_a_quarter_of_what_the_model_leaves(subject: Subject) -> None:
    for free in (64, 6.5, 6, 5.5):
        found = fit(subject, LoadOptions(), machine(free))
        left = int(free * GIB) - found.places[0].need.total
        assert found.options.memory_bytes == min(512 * 2**20, left // 4)
    assert found.options.memory_bytes < 512 * 2**20
    assert fit(subject, LoadOptions(memory_bytes=2**20), machine(64)).options.memory_bytes == 2**20
    assert fit(subject, LoadOptions(), machine(2), n_ctx=8192).options.memory_bytes == 0
    shares = fit(subject, LoadOptions(), machine(7, 7, integrated=True), variant="cuda")
    assert shares.options.memory_bytes == (7 * GIB - sum(place.need.total for place in shares.places)) // 4


def test_the_largest_context_is_one_that_fits_and_the_next_is_not(subject: Subject) -> None:
    for free in (5, 6, 8, 12):
        longest = largest_context(subject, LoadOptions(), machine(free))
        one = LoadOptions(n_ctx=longest, n_cells=longest)
        more = LoadOptions(n_ctx=longest + 256, n_cells=longest + 256)
        assert fit(subject, one, machine(free), n_ctx=longest).fits
        assert not fit(subject, more, machine(free), n_ctx=longest + 256).fits
    assert largest_context(subject, LoadOptions(), machine(64)) == 131_072
    assert largest_context(subject, LoadOptions(), machine(2)) == 0


def test_a_quantised_cache_takes_what_its_type_takes(subject: Subject) -> None:
    sizes = []
    for kind in ("f16", "q8_0", "q4_0"):
        found = fit(subject, LoadOptions(kv_type=kind), machine(64), n_ctx=16_384)
        sizes.append(found.places[0].need.cache)
    assert sizes[0] == 2 * GIB
    assert (sizes[1] / sizes[0], sizes[2] / sizes[0]) == (34 / 64, 18 / 64)


def installed(path: Path, **more: Any) -> InstalledModel:
    return InstalledModel("m", "M", str(path), path.stat().st_size, **more)


def test_what_is_asked_goes_before_what_is_kept_and_that_before_the_settings(path: Path) -> None:
    model = installed(path, options={"n_ctx": 2048, "kv_type": "q8_0"})
    asked = merged(ModelOptions(n_ctx=1024), model)
    settings = LlamaCppSettings(n_ctx=512, parallel=2, threads=3)
    options = plan(model, read_model(path), asked, settings, machine(64), variant="cpu").options
    assert (options.n_ctx, options.kv_type, options.n_seq, options.threads) == (1024, "q8_0", 2, 3)


def test_options_that_are_no_options_any_more_are_no_reason_not_to_load(path: Path) -> None:
    assert merged(ModelOptions(n_ctx=1024), installed(path, options={"gone": 1})) == ModelOptions(n_ctx=1024)


def test_an_adapter_the_model_does_not_have_is_refused(path: Path) -> None:
    asked = ModelOptions(adapters=[AdapterUse("absent")])
    with pytest.raises(ModelNotFound, match="has no adapter 'absent'"):
        plan(installed(path), read_model(path), asked, LlamaCppSettings(), machine(64), variant="cpu")


def test_a_model_that_does_not_fit_is_refused_with_what_is_needed_and_free(path: Path) -> None:
    info = read_model(path)
    found = plan(installed(path), info, ModelOptions(), LlamaCppSettings(), machine(4), variant="cpu")
    with pytest.raises(OutOfMemory, match=r"m does not fit: it takes 5\.\d GiB .* where 4\.0 GiB are free") as caught:
        check_fit("m", found)
    data = caught.value.data
    assert (data["reason"], data["cause"], data["device"], data["free"]) == ("memory", "out_of_memory", "cpu", 4 * GIB)
    assert data["needed"] == sum(data["parts"].values())
    assert "repack" in data["advice"]
    on_gpu = plan(
        installed(path), info, ModelOptions(n_gpu_layers=-1), LlamaCppSettings(), machine(16, 4), variant="cuda"
    )
    with pytest.raises(OutOfMemory, match="GPU 0") as caught:
        check_fit("m", on_gpu)
    assert caught.value.data["cause"] == "device_out_of_memory"


def test_an_estimate_tells_the_parts_and_their_sum(path: Path) -> None:
    told = estimate(installed(path), read_model(path), ModelOptions(), LlamaCppSettings(), machine(16), variant="cpu")
    [place] = told.memory
    assert told.fits
    assert place.fits
    assert place.needed == place.parts.total
    assert place.parts.cache == GIB
    assert 4.2 * GIB < place.parts.weights + place.parts.repacked < path.stat().st_size
    assert (told.n_ctx, told.cells, told.parallel, told.rough) == (8192, 8192, 8, False)
    assert told.max_n_ctx > 65_536


def test_what_is_free_is_less_what_loads_will_take_and_the_mapped_weights_of_loaded_models(subject: Subject) -> None:
    hardware = machine(32, 16)
    found = fit(subject, LoadOptions(), hardware, variant="cuda")
    host, gpu = (place.need.total for place in found.places)
    left = left_by(hardware, [found, found])
    assert left.memory_free == hardware.memory_free - 2 * host
    assert left.devices[0].memory_free == hardware.devices[0].memory_free - 2 * gpu
    assert given_back(left, [found, found]) == hardware
    assert given_back(hardware, [found] * 9).devices[0].memory_free == 24 * GIB, "there is no more than that"
    assert left_by(hardware, [found] * 9).devices[0].memory_free == 1, "none, and not: it does not tell"
    mapped = found.places[0].need.weights
    for mmap, taken in ((True, mapped), (False, 0)):
        there = msgspec.structs.replace(found, options=msgspec.structs.replace(found.options, mmap=mmap))
        room = Room(lambda: hardware, loading=dict, loaded=lambda there=there: [there], idle=list, give_up_one=never)
        assert room.beside_loaded(hardware).memory_free == hardware.memory_free - taken


async def never() -> bool:
    return False

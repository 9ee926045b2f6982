"""Causes of death, by what engines, drivers and C libraries write before they end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.causes import Kind, cause_of, memory_cause
from jan_llamacpp.oom import oom_kills

TEXTS: list[tuple[Kind, str, str | None, str]] = [
    # kind, what is in the message, signal, text
    ("out_of_memory", "kv cache", "SIGABRT", "llama_init_from_model: failed to initialize the context: failed to "
     "allocate buffer for kv cache"),
    ("out_of_memory", "std::bad_alloc", "SIGABRT", "terminate called after throwing an instance of 'std::bad_alloc'\n"
     "  what():  std::bad_alloc"),
    ("out_of_memory", "cpu_buffer", "SIGSEGV", "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer "
     "of size 19327352832\nalloc_tensor_range: failed to allocate CPU buffer of size 19327352832"),
    ("out_of_memory", "38654.71 MB", "SIGABRT", "ggml_aligned_malloc: insufficient memory (attempted to allocate "
     "38654.71 MB)"),
    ("out_of_memory", "MemoryError", None, "worker: defect: MemoryError\n  File \"scheduler.py\", line 9, in step"),
    ("out_of_memory", "ErrorOutOfHostMemory", "SIGABRT", "ggml_vulkan: vk::Device::createFence: ErrorOutOfHostMemory"),
    ("device_out_of_memory", "cudaMalloc", "SIGABRT", "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8192.00 "
     "MiB on device 0: cudaMalloc failed: out of memory\nalloc_tensor_range: failed to allocate CUDA0 buffer of size "
     "8589934592"),
    ("device_out_of_memory", "CUDA error", "SIGABRT", "CUDA error: out of memory\n  current device: 0, in function "
     "alloc at ggml-cuda.cu:474\n  cuMemCreate(&handle, reserve_size, &prop, 0)\nggml-cuda.cu:98: CUDA error"),
    ("device_out_of_memory", "ROCm error", "SIGABRT", "ROCm error: out of memory\n  current device: 0"),
    ("device_out_of_memory", "ErrorOutOfDeviceMemory", "SIGABRT", "ggml_vulkan: Device memory allocation of size "
     "2147483648 failed.\nggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"),
    ("device_out_of_memory", "kIOGPU", "SIGABRT", "ggml_metal_graph_compute: command buffer 0 failed with status 5\n"
     "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
    ("device_lost", "DeviceLostError", "SIGABRT", "terminate called after throwing an instance of "
     "'vk::DeviceLostError'\n  what():  vk::Queue::submit: ErrorDeviceLost"),
    ("device_lost", "Radeon", "SIGABRT", "ggml_vulkan: device lost on AMD Radeon RX 6600"),
    ("device_lost", "illegal memory access", "SIGABRT", "CUDA error: an illegal memory access was encountered\n  "
     "current device: 0, in function ggml_backend_cuda_synchronize at ggml-cuda.cu:3117"),
    ("device_lost", "unspecified launch failure", "SIGABRT", "ROCm error: unspecified launch failure"),
    ("device_lost", "status 5", "SIGABRT", "ggml_metal_synchronize: error: command buffer 0 failed with status 5\n"
     "error: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)"),
    ("heap_corruption", "double free", "SIGABRT", "free(): double free detected in tcache 2"),
    ("heap_corruption", "invalid pointer", "SIGABRT", "free(): invalid pointer"),
    ("heap_corruption", "corrupted size", "SIGABRT", "corrupted size vs. prev_size"),
    ("heap_corruption", "malloc()", "SIGABRT", "malloc(): unaligned tcache chunk detected"),
    ("heap_corruption", "not allocated", "SIGABRT", "Python(501,0x1) malloc: *** error for object 0x1: pointer being "
     "freed was not allocated"),
    ("assertion", "GGML_ASSERT", "SIGABRT", "/ggml/src/ggml.c:3456: GGML_ASSERT(ggml_can_mul_mat(a, b)) failed"),
    ("assertion", "std::runtime_error", "SIGABRT", "terminate called after throwing an instance of "
     "'std::runtime_error'\n  what():  unknown model"),
    ("defect", "RuntimeError", None, "worker: defect: RuntimeError\n  File \"main.py\", line 1, in receive"),
    ("file_lost", "SIGBUS", "SIGBUS", ""),
    ("illegal_instruction", "SIGILL", "SIGILL", ""),
    ("crash", "SIGSEGV", "SIGSEGV", "llama_kv_cache: size =   64.00 MiB"),
    ("crash", "SIGABRT", "SIGABRT", ""),
    ("killed", "SIGKILL", "SIGKILL", ""),
    ("killed", "SIGTERM", "SIGTERM", ""),
    ("exited", "status 7", None, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "telling", "signal", "text"), TEXTS, ids=[text[-1][:40] or str(text[2]) for text in TEXTS]
)
def test_the_last_words_of_an_engine_tell_the_cause(kind: Kind, telling: str, signal: str | None, text: str) -> None:
    cause = cause_of(code=None if signal else 7, signal=signal, log=f"llama_model_loader: loaded meta data\n{text}\n")
    assert cause.kind == kind
    assert telling in cause.message


def test_what_went_wrong_long_before_the_end_is_not_its_cause() -> None:
    log = "failed to allocate CUDA0 buffer of size 1\n" + "llama_context: fine\n" * 50
    assert cause_of(code=None, signal="SIGSEGV", log=log).kind == "crash"


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: failed to allocate 64.00 MB of pinned memory",
        "llama_model_loader: - kv   3: general.name str = out of memory",
    ],
)
def test_an_allocation_that_may_fail_and_a_text_of_the_model_are_no_cause(line: str) -> None:
    assert memory_cause(line) is None


def test_only_the_kernels_counter_tells_a_kill_for_memory_from_another() -> None:
    assert cause_of(code=None, signal="SIGKILL", log="", oom_killed=True).kind == "out_of_memory"
    assert cause_of(code=None, signal="SIGTERM", log="", oom_killed=True).kind == "killed"
    assert cause_of(code=None, signal="SIGKILL", log="", hung="it slept").message == "it slept"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0xC0000005, "crash"),
        (0xC0000374, "heap_corruption"),
        (-0x3FFFFFEF + 0, "exited"),
        (0xC000001D - 2**32, "illegal_instruction"),
    ],
)
def test_windows_statuses_have_causes_signed_or_not(code: int, kind: Kind) -> None:
    assert cause_of(code=code, signal=None, log="").kind == kind


@given(
    log=st.text(),
    code=st.none() | st.integers(-(2**31), 2**32),
    signal=st.sampled_from([None, "SIGKILL", "SIGABRT", "signal 99"]),
)
def test_any_end_has_a_cause_in_words(log: str, code: int | None, signal: str | None) -> None:
    assert cause_of(code=code, signal=signal, log=log).message


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_kills_for_memory_are_read_from_the_nearest_counter(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0
    write(tmp_path / "proc/self/cgroup", "1:memory,cpu:/old\n0::/user/app\n")
    (tmp_path / "proc/vmstat").write_text("pgfault 5\noom_kill 9\n")
    assert oom_kills(tmp_path) == 9
    write(tmp_path / "sys/fs/cgroup/user/app/memory.events", "low 0\noom 8\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(tmp_path) == 2
    write(tmp_path / "sys/fs/cgroup/memory/old/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert oom_kills(tmp_path) == 1

"""The GGUF reader: what it tells of good files, and that bad ones are refused with their reason before native
code.
"""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jan_llamacpp.gguf import GGUFInfo, InvalidModelFile, read_info

from .conftest import MakeModel
from .gguf_bytes import ARRAY, LLAMA, STRING, TENSORS, U32, header, string, whole


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def refusal(folder: Path, data: bytes) -> InvalidModelFile:
    with pytest.raises(InvalidModelFile) as caught:
        read_info(written(folder, data))
    return caught.value


def without(*keys: str) -> dict[str, Any]:
    return {key: content for key, content in LLAMA.items() if key not in keys}


def test_a_model_written_by_the_gguf_package_is_described(babble: Path) -> None:
    info = read_info(babble)
    assert (info.architecture, info.name, info.kind) == ("llama", "babble", "model")
    assert (info.block_count, info.context_length, info.embedding_length) == (2, 4096, 64)
    assert info.has_chat_template
    assert info.size == babble.stat().st_size
    assert info.quantization == "F32"
    import gguf

    reader = gguf.GGUFReader(babble)
    assert info.n_params == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert info.n_vocab == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert info.eos_token_id == reader.fields["tokenizer.ggml.eos_token_id"].contents()


@pytest.mark.parametrize("version", [2, 3])
def test_both_supported_versions_are_read(tmp_path: Path, version: int) -> None:
    info = read_info(written(tmp_path, whole(version=version)))
    assert info.version == version
    assert info.quantization == "Q8_0"
    assert info.license == "apache-2.0"
    assert info.n_params == 3 * 32 + 2 * 32 * 32


def test_per_layer_values_are_kept_and_vocabularies_only_counted(tmp_path: Path) -> None:
    info = read_info(written(tmp_path, whole(LLAMA | {"llama.attention.head_count_kv": [4, 8]})))
    assert info.metadata["llama.attention.head_count_kv"] == [4, 8]
    assert info.metadata["tokenizer.ggml.tokens"] is None
    assert info.lengths == {"tokenizer.ggml.tokens": 3, "llama.attention.head_count_kv": 2}


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"GG", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00" + bytes(400)):
        assert refusal(tmp_path, data).reason == "not_gguf"


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match=r"absent\.gguf cannot be read: No such file") as caught:
        read_info(tmp_path / "absent.gguf")
    assert caught.value.reason == "unreadable"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile) as caught:
        read_info(tmp_path)
    assert caught.value.reason == "unreadable"


def test_a_pipe_is_refused_at_once_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InvalidModelFile, match="it is not a file"):
        read_info(tmp_path / "pipe.gguf")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        read_info(tmp_path / name)


def test_a_big_endian_file_is_named_as_such(tmp_path: Path) -> None:
    error = refusal(tmp_path, b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100))
    assert error.reason == "big_endian"


@pytest.mark.parametrize("version", [0, 1, 4, 77])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    assert refusal(tmp_path, whole(version=version)).reason == "version"


def test_a_truncated_file_is_refused_with_the_number_of_missing_bytes(tmp_path: Path) -> None:
    data = whole()
    used = len(data)  # the last tensor fills its padding exactly
    error = refusal(tmp_path, data[:-100])
    assert error.reason == "truncated"
    assert error.message.startswith("truncated: 100 bytes missing")
    assert read_info(written(tmp_path, data)).size == used


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    data = whole()
    path = written(tmp_path, data)
    head = len(header())
    for length in (*range(len(data) - 1, head, -97), *range(head, -1, -1)):
        os.truncate(path, length)
        with pytest.raises(InvalidModelFile, match=r"truncated|not a GGUF file"):
            read_info(path)


def test_a_header_that_promises_blocks_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    data = whole(LLAMA | {"llama.block_count": 400}, TENSORS[:1])
    error = refusal(tmp_path, data)
    assert error.reason == "missing_tensors"
    assert "400 blocks" in error.message


def test_more_blocks_than_llama_cpp_supports_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, whole(LLAMA | {"llama.block_count": 1000}, TENSORS[:1])).reason == "limit"


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture", "llama.context_length", "llama.embedding_length", "llama.block_count",
        "tokenizer.ggml.model", "tokenizer.ggml.tokens",
    ],
)  # fmt: skip
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    error = refusal(tmp_path, whole(without(key)))
    assert error.reason == "missing_key"
    assert key in error.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"llama.block_count": "two"}, "malformed"),
        ({"llama.context_length": 0}, "malformed"),
        ({"general.architecture": 7}, "malformed"),
        ({"llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, -1.0)}, "malformed"),
        ({"llama.rope.freq_base": struct.pack("<If", 6, float("nan"))}, "malformed"),
        ({"general.alignment": 33}, "malformed"),
        ({"general.alignment": 0}, "malformed"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "malformed"),
        ({"odd": struct.pack("<I", 99)}, "malformed"),
        ({"odd": struct.pack("<IB", 7, 2)}, "malformed"),
        ({"odd": struct.pack("<IIQ", ARRAY, ARRAY, 1)}, "malformed"),
        ({"odd": struct.pack("<IIQ", ARRAY, STRING, 2**60)}, "limit"),
        ({"odd": struct.pack("<IIQ", ARRAY, STRING, 2**20)}, "truncated"),
        ({"odd": struct.pack("<IIQ", ARRAY, U32, 2**63)}, "limit"),
        ({"odd": struct.pack("<IQ", STRING, 2**63)}, "limit"),
        ({"odd": struct.pack("<IQ", STRING, 2**15)}, "truncated"),
        ({"odd": struct.pack("<IQ", STRING, 2) + b"\xff\xfe"}, "malformed"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert refusal(tmp_path, whole(LLAMA | change)).reason == reason


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (string("a") + struct.pack("<II", U32, 1))
    assert refusal(tmp_path, data).reason == "malformed"


@pytest.mark.parametrize("counts", [(2**63, 1), (1, 2**63), (2**64 - 1, 2**64 - 1), (2**16, 0), (0, 2**15)])
def test_counts_beyond_the_file_are_refused_at_once(tmp_path: Path, counts: tuple[int, int]) -> None:
    started = time.process_time()
    assert refusal(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, *counts) + bytes(200)).reason in (
        "limit",
        "truncated",
    )
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (("x" * 64, [32], 0), "bytes in a tensor's name"),
        (("token_embd.weight", [32], 0), "twice"),
        (("t", [32] * 5, 0), "dimensions"),
        (("t", [32, 0], 0), "impossible"),
        (("t", [2**40, 2**40], 0), "impossible"),
        (("t", [32], 200), "type"),
        (("t", [31], 8), "blocks"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(tmp_path: Path, tensor: tuple[str, list[int], int], words: str) -> None:
    error = refusal(tmp_path, header(LLAMA, [*TENSORS, tensor]) + bytes(10_000))
    assert error.reason in ("tensor", "limit")
    assert words in error.message


def test_a_tensor_at_a_crooked_place_is_refused(tmp_path: Path) -> None:
    data = bytearray(header())
    data[-8:] = struct.pack("<Q", 33)
    assert refusal(tmp_path, bytes(data) + bytes(10_000)).reason == "tensor"


def test_a_part_of_a_split_model_is_recognised(tmp_path: Path) -> None:
    part = LLAMA | {"split.count": 3, "llama.block_count": 90}
    assert read_info(written(tmp_path, whole(part))).kind == "shard"


def test_projectors_and_adapters_are_recognised(tmp_path: Path) -> None:
    tensors = [("v.patch_embd.weight", [32, 32], 0)]
    clip = {"general.architecture": "clip", "general.type": "mmproj"}
    assert read_info(written(tmp_path, whole(clip, tensors))).kind == "projector"
    lora = {"general.architecture": "llama", "general.type": "adapter"}
    assert read_info(written(tmp_path, whole(lora, tensors))).kind == "adapter"


def test_only_the_header_of_a_large_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, whole())
    os.truncate(path, 40 * 2**30)  # sparse: takes no space
    tracemalloc.start()
    try:
        assert read_info(path).size == 40 * 2**30
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_a_header_longer_than_the_limit_is_refused_with_bounded_memory(tmp_path: Path) -> None:
    path = written(tmp_path, header(LLAMA | {"odd": struct.pack("<IIQ", ARRAY, U32, 2**25)}))
    os.truncate(path, 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModelFile) as caught:
            read_info(path)
        assert caught.value.reason == "limit"
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_large_vocabulary_is_stepped_over_quickly(tmp_path: Path) -> None:
    tokens = [f"token{number}" for number in range(150_000)]
    merges = [f"tok en{number}" for number in range(150_000)]
    big = LLAMA | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges}
    path = written(tmp_path, whole(big))
    best = min(_seconds(path) for _ in range(3))
    assert read_info(path).n_vocab == 150_000
    assert best < 0.5  # the bound only catches another order of magnitude


@pytest.mark.parametrize("odd", [b"", b"x" * 63, b"x" * 64, b"\xff" * 300, b"y" * 70_000])
def test_a_vocabulary_with_an_unusual_token_is_stepped_over_exactly(tmp_path: Path, odd: bytes) -> None:
    tokens = [b"token%d" % number for number in range(20_000)]
    for place in (0, 5_000, 12_288, 19_999):
        tokens[place] = odd
    array = struct.pack("<IIQ", ARRAY, STRING, len(tokens))
    array += b"".join(struct.pack("<Q", len(token)) + token for token in tokens)
    data = whole(without("tokenizer.ggml.tokens") | {"tokenizer.ggml.tokens": array, "after": 77})
    info = read_info(written(tmp_path, data))
    assert (info.n_vocab, info.metadata["after"]) == (20_000, 77)
    assert refusal(tmp_path, data[: len(data) // 2]).reason == "truncated"


def _seconds(path: Path) -> float:
    started = time.process_time()
    read_info(path)
    return time.process_time() - started


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(whole(LLAMA | {"llama.attention.head_count": [4, 4], "flag": True}))
    head = len(header(LLAMA))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, head - 1))
        match data.draw(st.sampled_from(["byte", "number", "cut", "insert"])):
            case "byte":
                damaged[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "number":
                damaged[at : at + 8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
            case "cut":
                del damaged[at : at + data.draw(st.integers(1, 64))]
            case "insert":
                damaged[at:at] = data.draw(st.binary(max_size=32))
    path = written(tmp_path, bytes(damaged))
    started = time.process_time()
    try:
        outcome: GGUFInfo | InvalidModelFile = read_info(path)
    except InvalidModelFile as error:
        outcome = error
    assert time.process_time() - started < 0.5  # of the processor: others may keep it busy
    if isinstance(outcome, InvalidModelFile):
        assert outcome.message
        assert 0 <= outcome.offset <= len(damaged)
    else:
        assert outcome.size == len(damaged)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_random_bytes_after_the_magic_are_refused(tmp_path: Path, junk: bytes) -> None:
    with pytest.raises(InvalidModelFile):
        read_info(written(tmp_path, b"GGUF" + struct.pack("<I", 3) + junk))


def test_a_file_made_with_another_depth_is_described_as_such(make_model: MakeModel) -> None:
    assert read_info(make_model(n_layer=3)).block_count == 3

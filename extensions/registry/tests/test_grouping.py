"""Ids, file names and variants: the same for the same files in any order, and safe whatever they are called."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import canonical
from jan_registry.collections.check import check
from jan_registry.hubs.grouping import Grouped, RepoFile, group, quantization_of
from jan_registry.hubs.ids import distinct, file_name, model_id, slug

from jan_core.types import ModelVariant


def _of(*paths: str) -> Grouped:
    return group([RepoFile(path, 100 + place, f"{place:064x}") for place, path in enumerate(paths)])


def _names(variant: ModelVariant) -> list[tuple[str, str]]:
    return [(file.role, file.name) for file in variant.files]


def test_every_quantization_is_a_variant_and_the_one_for_most_machines_comes_first() -> None:
    grouped = _of("m-Q2_K.gguf", "m-BF16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q5_K_M.gguf", "README.md")
    assert [variant.id for variant in grouped.variants] == ["q4_k_m", "q5_k_m", "q8_0", "q2_k", "bf16"]
    assert [variant.quantization for variant in grouped.variants] == ["Q4_K_M", "Q5_K_M", "Q8_0", "Q2_K", "BF16"]
    assert grouped.left == []


@pytest.mark.parametrize(
    ("paths", "first"),
    [
        (["m-UD-Q4_K_XL.gguf", "m-Q5_K_M.gguf"], "ud-q4_k_xl"),
        (["m-IQ2_M.gguf", "m-Q5_K_M.gguf"], "q5_k_m"),
        (["m-F16.gguf", "m-Q8_0.gguf"], "q8_0"),
        (["m-F16.gguf", "m-balanced.gguf"], "m-balanced"),
        (["m-IQ1_S.gguf", "m-IQ3_S.gguf"], "iq3_s"),
        (["m.gguf"], "m"),
    ],
)
def test_without_that_one_the_nearest_comes_first(paths: list[str], first: str) -> None:
    assert _of(*paths).variants[0].id == first


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("Jan-v3.5-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("model.i1-IQ2_XXS.gguf", "IQ2_XXS"),
        ("gemma-4-31B-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("m-NVFP4.gguf", "NVFP4"),
        ("m-fp16.gguf", "F16"),
        ("ggml-model-i2_s.gguf", "I2_S"),
        ("m-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("m-TQ1_0-00001-of-00002.gguf", "TQ1_0"),
        ("BF16/m-16.gguf", "BF16"),
        ("Q2_K/m-Q8_0.gguf", "Q8_0"),
        ("m-Q8_0-draft.gguf", "Q8_0"),
        ("Qwen3-Q-bot.gguf", ""),
        ("m-4bit.gguf", ""),
        ("IQ-test.gguf", ""),
        ("SQ4_K_Mx.gguf", ""),
    ],
)
def test_the_quantization_is_read_from_the_name_and_never_guessed(path: str, quantization: str) -> None:
    assert quantization_of(path) == quantization


def test_parts_are_one_variant_in_their_order() -> None:
    grouped = _of(
        "Q8_0/m-Q8_0-00002-of-00003.gguf", "Q8_0/m-Q8_0-00003-of-00003.gguf", "Q8_0/m-Q8_0-00001-of-00003.gguf"
    )
    (variant,) = grouped.variants
    assert variant.id == "q8_0"
    assert [name for _, name in _names(variant)] == [f"m-Q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert variant.memory == 100 + 101 + 102


def test_parts_of_which_one_is_missing_are_left_out_with_the_reason() -> None:
    grouped = _of("m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf", "m-Q4_0.gguf")
    assert [variant.id for variant in grouped.variants] == ["q4_0"]
    assert [(left.path, left.reason) for left in grouped.left] == [
        ("m-Q8_0-00001-of-00003.gguf", "of 3 parts, 2 are there"),
        ("m-Q8_0-00003-of-00003.gguf", "of 3 parts, 2 are there"),
    ]


def test_parts_that_count_wrongly_are_left_out() -> None:
    assert _of("m-00000-of-00002.gguf", "m-00001-of-00002.gguf").variants == []
    assert _of("m-00001-of-00000.gguf").variants == []
    assert [variant.id for variant in _of("m-00000-of-00000.gguf", "m.gguf").variants] == ["m"]
    assert _of("m-00001-of-00001.gguf").variants[0].files[0].name == "m-00001-of-00001.gguf"


def test_each_variant_has_the_projector_in_half_precision() -> None:
    grouped = _of("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf")
    for variant in grouped.variants:
        assert _names(variant)[1:] == [("projector", "mmproj-F16.gguf")]
    assert {(left.path, left.reason) for left in grouped.left} == {
        ("mmproj-F32.gguf", "another projector suits better"),
        ("mmproj-BF16.gguf", "another projector suits better"),
    }


def test_a_projector_goes_to_the_model_whose_name_it_bears() -> None:
    grouped = _of(
        "gemma-4b-it-Q4_K_M.gguf",
        "gemma-12b-it-Q4_K_M.gguf",
        "mmproj-gemma-4b-it-BF16.gguf",
        "gemma-12b-it.mmproj-f16.gguf",
        "unlike-Q4_K_M.gguf",
    )
    paired = {variant.files[0].name: [name for _, name in _names(variant)[1:]] for variant in grouped.variants}
    assert paired == {
        "gemma-4b-it-Q4_K_M.gguf": ["mmproj-gemma-4b-it-BF16.gguf"],
        "gemma-12b-it-Q4_K_M.gguf": ["gemma-12b-it.mmproj-f16.gguf"],
        "unlike-Q4_K_M.gguf": [],
    }


def test_a_projector_without_a_model_is_left_out() -> None:
    grouped = _of("mmproj-F16.gguf")
    assert grouped.variants == []
    assert grouped.left[0].reason == "a projector without its model"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("m-imatrix.gguf", "statistics for quantizing, not a model"),
        ("m-lora-f16.gguf", "an adapter, which is used with a model"),
        ("ggml-vocab-llama.gguf", "a vocabulary without weights"),
        ("m-Q8_0.gguf.part1of2", "a piece of a GGUF file, to be joined by hand"),
    ],
)
def test_what_is_no_model_by_itself_is_left_out_with_the_reason(path: str, reason: str) -> None:
    grouped = _of("m-Q4_K_M.gguf", path)
    assert [variant.id for variant in grouped.variants] == ["q4_k_m"]
    assert [(left.path, left.reason) for left in grouped.left] == [(path, reason)]


def test_a_model_that_was_quantized_with_an_importance_matrix_may_be_named_so() -> None:
    assert len(_of("Qwen-4.256bpw-imatrix.gguf").variants) == 1
    assert _of("imatrix_unsloth.gguf").variants == []


def test_memory_is_known_only_when_all_sizes_are() -> None:
    assert group([RepoFile("m-Q4_0.gguf", 7), RepoFile("mmproj.gguf", 2)]).variants[0].memory == 9
    assert group([RepoFile("m-Q4_0.gguf", 7), RepoFile("mmproj.gguf", 0)]).variants[0].memory == 0


def test_two_models_of_one_quantization_have_two_ids() -> None:
    ids = [variant.id for variant in _of("qwen-4b-Q4_K_M.gguf", "qwen-4b-native-Q4_K_M.gguf").variants]
    assert ids == ["q4_k_m", "qwen-4b-native-q4_k_m"]


def test_files_of_one_name_in_two_folders_keep_apart() -> None:
    variants = _of("q4/model.gguf", "q8/model.gguf").variants
    assert sorted(file.name for variant in variants for file in variant.files) == ["q4-model.gguf", "q8-model.gguf"]
    assert len({variant.id for variant in variants}) == 2


def test_names_in_other_scripts_become_plain_ones_that_stay_apart() -> None:
    variants = _of("模型-Q8_0-00001-of-00002.gguf", "模型-Q8_0-00002-of-00002.gguf", "典型-Q8_0.gguf").variants
    names = [file.name for variant in variants for file in variant.files]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+() -]*\.gguf", name) for name in names)
    assert len(set(names)) == 3
    first, second = (name for name in names if "-of-" in name)
    assert first.replace("00001-of", "") == second.replace("00002-of", "")


@pytest.mark.parametrize("name", ["CON", "aux", "lpt1.x", "nul.tar"])
def test_a_name_that_windows_keeps_for_itself_is_never_given(name: str) -> None:
    assert file_name(name, ".gguf") == f"_{name}.gguf"


@pytest.mark.parametrize(
    ("parts", "id"),
    [
        (["janhq/Jan-v1-4B-GGUF"], "janhq/jan-v1-4b-gguf"),
        (["janhq", "Jan v1"], "janhq/jan-v1"),
        (["library/llama3.2:3b"], "library/llama3.2:3b"),
        (["a/../b"], "a/b"),
        (["//a//b//"], "a/b"),
    ],
)
def test_an_id_is_that_of_the_hub_in_lower_case(parts: list[str], id: str) -> None:
    assert model_id(*parts) == id


def test_what_is_lost_on_the_way_to_an_id_is_told_by_a_hash() -> None:
    assert model_id("通义/千问") != model_id("通义/百川")
    assert model_id("a" * 200) != model_id("a" * 201)
    assert slug("a b") == "a-b"
    assert slug("e\u0301t\u00e9") == slug("\u00e9t\u00e9")
    assert slug("a\u00df") != slug("a-")


_SOME = st.text(st.sampled_from("aB4é模.-_/ \u202e\x00%+:()"), min_size=1, max_size=20) | st.text(max_size=300)
_PATHS = st.lists(
    _SOME
    | st.builds(
        "{}{}{}{}{}".format,
        st.sampled_from(["", "m", "M", "x/m", "mmproj-", "a/mmproj-m", "imatrix", "模", "CON"]),
        st.sampled_from(["", "-Q4_K_M", "-q4_k_m", "-UD-IQ2_XXS", ".BF16", "-lora"]),
        st.sampled_from(["", "-00001-of-00002", "-00002-of-00002", "-00001-of-00000", "-00001-of-99999"]),
        st.sampled_from([".gguf", ".GGUF", ".gguf.part1", ".safetensors"]),
        st.just(""),
    ),
    max_size=30,
)


@given(_PATHS, st.randoms(use_true_random=False))
def test_any_files_make_the_same_variants_in_any_order_and_each_is_a_record_that_passes(
    paths: list[str], chance: random.Random
) -> None:
    files = [RepoFile(path, len(path), "") for path in paths]
    grouped = group(files)
    shuffled = files[:]
    chance.shuffle(shuffled)
    assert group(shuffled) == grouped
    used = [file for variant in grouped.variants for file in variant.files]
    listed = {file.name: {"path": file.name, "role": file.role, "size": file.size} for file in used}
    places = {name: place for place, name in enumerate(listed)}
    record = {
        "id": model_id("x", *paths),
        "name": "x",
        "files": list(listed.values()),
        "variants": [
            {"id": variant.id, "quant": variant.quantization, "files": [places[file.name] for file in variant.files]}
            for variant in grouped.variants
        ],
    }
    check("models", canonical(record))
    left = [left.path for left in grouped.left]
    assert len(set(left)) == len(left)
    assert len(listed) + sum(map(_is_gguf, left)) == sum(map(_is_gguf, set(paths)))


def _is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")


@given(st.lists(_SOME, max_size=30))
def test_distinct_names_stay_distinct_whatever_they_are_reduced_to(names: list[str]) -> None:
    for reduce in (slug, file_name, lambda name: "same"):
        chosen = distinct(names, reduce)
        assert set(chosen) == set(names)
        assert len({one.lower() for one in chosen.values()}) == len(chosen)
        assert chosen == distinct(reversed(names), reduce)


def test_a_repository_with_thousands_of_files_is_grouped_at_once() -> None:
    many = [f"{kind}m{number}-Q4_0.gguf" for number in range(3000) for kind in ("", "mmproj-")]
    grouped = _of(*many)
    assert len(grouped.variants) == 512
    assert "more than 512 of its kind" in {left.reason for left in grouped.left}

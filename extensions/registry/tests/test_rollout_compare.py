"""How two lists are compared."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.rollout.compare import compare

from jan_core.types import DownloadFile, ModelRecord, ModelVariant

A, B = "a" * 64, "b" * 64


def model(id: str, *files: DownloadFile, **fields: object) -> ModelRecord:
    return ModelRecord(id, id.title(), files=list(files), **fields)  # type: ignore[arg-type]


def weights(name: str = "w.gguf", sha256: str = A, size: int = 10, url: str = "https://hub.test/w") -> DownloadFile:
    return DownloadFile(name, url, sha256, size)


def test_equal_lists_cover_each_other_without_deviation() -> None:
    models = [model("a", weights()), model("b", weights("x.gguf"))]
    found = compare(models, models, shown=["a", "b"], shown_by_candidate=["a", "b"])
    assert (found.coverage, found.overlap, found.counts, found.invalid) == (10_000, 10_000, {}, 0)


def test_an_id_that_is_not_there_is_missing_and_lowers_the_coverage_rounded_down() -> None:
    found = compare([model(id, weights()) for id in "abc"], [model("a", weights()), model("b", weights())])
    assert found.coverage == 6_666
    assert found.counts == {"missing": 1}
    assert found.examples[0].id == "c"


def test_a_deprecated_id_counts_as_covered_even_without_files() -> None:
    gone = model("a", extra={"deprecated": {"replaced_by": "b"}})
    found = compare([model("a", weights())], [gone])
    assert (found.coverage, found.counts) == (10_000, {"deprecated": 1})


def test_a_model_of_which_no_file_can_be_had_is_missing() -> None:
    found = compare([model("a", weights())], [model("a", weights(sha256="", url=""))])
    assert (found.coverage, found.counts) == (0, {"missing": 1})


def test_a_model_that_is_part_of_the_program_needs_no_files() -> None:
    assert compare([model("a")], [model("a")]).coverage == 10_000


def test_another_hash_or_size_of_one_file_is_a_conflict_when_both_state_it() -> None:
    ours = [model("a", weights())]
    assert compare(ours, [model("a", weights(sha256=B))]).conflicts == 1
    assert compare(ours, [model("a", weights(size=11))]).conflicts == 1
    assert compare(ours, [model("a", weights(sha256="", size=0))]).conflicts == 0
    assert compare(ours, [model("a", weights("other.gguf", sha256=B))]).counts == {"expected": 1}


def test_a_conflict_in_a_variant_is_found() -> None:
    ours = model("a", variants=[ModelVariant("q8", files=[weights()])])
    theirs = model("a", variants=[ModelVariant("q4", files=[weights(sha256=B)])])
    assert compare([ours], [theirs]).conflicts == 1


def test_a_model_that_only_the_newer_list_shows_is_expected() -> None:
    found = compare([model("a")], [model("a"), model("b")], shown=["a"], shown_by_candidate=["b", "a"])
    assert found.counts == {"expected": 1}
    assert found.overlap == 10_000


def test_the_overlap_is_of_the_first_ten() -> None:
    ours = [f"m{i}" for i in range(20)]
    assert compare([], [], shown=ours, shown_by_candidate=[*ours[5:10], *"abcde", *ours[:5]]).overlap == 5_000
    assert compare([], [], shown=["a"], shown_by_candidate=[]).overlap == 0


def test_records_nobody_could_use_are_counted() -> None:
    bad = [
        model("a", weights(sha256="xyz")),
        model("b", weights(size=-1)),
        ModelRecord("c", ""),
        model("d"),
        model("d"),
    ]
    assert compare([], bad).invalid == 4


def test_no_more_than_five_examples_of_a_kind_are_kept() -> None:
    found = compare([model(f"m{i}") for i in range(30)], [])
    assert found.counts == {"missing": 30}
    assert len(found.examples) == 5


ids = st.sampled_from(["a", "b", "c", "d"])
files = st.builds(
    DownloadFile,
    name=st.sampled_from(["x", "y"]),
    url=st.sampled_from(["", "https://hub.test/x"]),
    sha256=st.sampled_from(["", A, B]),
    size=st.sampled_from([0, 1, 2]),
)
models = st.lists(st.builds(ModelRecord, id=ids, name=st.just("n"), files=st.lists(files, max_size=3)), max_size=6)


@settings(deadline=None)
@given(models, models)
def test_whatever_the_lists_are_shares_are_shares_and_the_same_lists_give_the_same(
    control: list[ModelRecord], candidate: list[ModelRecord]
) -> None:
    found = compare(control, candidate)
    assert 0 <= found.coverage <= 10_000
    assert found == compare(list(reversed(control)), candidate) or len({m.id for m in control}) < len(control)
    assert all(isinstance(value, int) and not isinstance(value, bool) for value in found.counts.values())

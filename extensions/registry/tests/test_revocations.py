"""Revocations: found by hash and by model whatever the case, and what is voted and shown in consequence."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Revocation, canonical
from jan_registry.revocations import Revocations, admit_download, admit_load, unconfirmed, without_revoked
from msgspec import to_builtins

from jan_core.types import DownloadFile, DownloadJob, ModelFile, ModelLoad, ModelRecord, ModelVariant

A, B, C = "a" * 64, "b" * 64, "c" * 64
DAY = 86400


def revoked(*revocations: Revocation) -> Revocations:
    return Revocations(canonical(to_builtins(each)) for each in revocations)


def job(file: DownloadFile) -> DownloadJob:
    return DownloadJob("1", file, "/x", 10**12)


def nothing(id: str) -> None:
    return None


BY_FILE = Revocation(id="r1", reason="steals passwords", sha256=A, at="2026-11-01")
BY_MODEL = Revocation(id="r2", reason="licence withdrawn", model="cortexso/evil:3b")


def test_a_file_is_found_by_its_hash_and_a_model_by_its_id_in_any_case() -> None:
    found = revoked(BY_FILE, BY_MODEL)
    assert found.refusal(A.upper()) == BY_FILE
    assert found.refusal(model="CortexSO/Evil:3B") == BY_MODEL
    assert found.refusal(B, "cortexso/good") is None
    assert found.refusal() is None, "what has no hash and no id is not revoked"
    assert len(found) == 2


def test_of_several_revocations_the_same_one_is_told_whatever_their_order() -> None:
    both = [Revocation(id=id, reason=id, sha256=A, model="m") for id in ("r9", "r1", "r5")]
    for order in (both, both[::-1]):
        found = revoked(*order).refusal(A, "m")
        assert found is not None
        assert found.id == "r1"


def test_a_download_is_refused_by_its_hash_with_the_reason_and_since_when() -> None:
    vote = admit_download(job(DownloadFile("x.gguf", sha256=A.upper())), revoked(BY_FILE), nothing)
    assert vote is not None
    assert not vote.allowed
    assert vote.reason == "the operator of the model list has revoked it since 2026-11-01: steals passwords"
    assert admit_download(job(DownloadFile("x.gguf", sha256=B)), revoked(BY_FILE), nothing) is None
    assert admit_download(job(DownloadFile("x.gguf")), revoked(BY_FILE, BY_MODEL), nothing) is None


@pytest.mark.parametrize(
    "file", [DownloadFile("x", url="https://h/x"), DownloadFile("y", sha256=C), DownloadFile("p", "https://h/y")]
)
def test_the_files_of_a_revoked_model_are_refused_as_long_as_the_list_knows_them(file: DownloadFile) -> None:
    model = ModelRecord(
        "cortexso/evil:3b",
        "Evil",
        files=[DownloadFile("x", "https://h/x")],
        variants=[ModelVariant("q4", files=[DownloadFile("y", "https://h/y", sha256=C)])],
    )
    asked: list[str] = []

    def find(id: str) -> ModelRecord | None:
        asked.append(id)
        return model if id == model.id else None

    found = revoked(BY_MODEL, Revocation(id="r3", reason="x", model="gone"))
    for _ in range(3):
        vote = admit_download(job(file), found, find)
        assert vote is not None
        assert "licence withdrawn" in vote.reason
    assert sorted(asked) == ["cortexso/evil:3b", "gone"], "the list is looked through once"
    assert admit_download(job(DownloadFile("z", url="https://h/z", sha256=B)), found, find) is None


def test_a_projector_of_a_revoked_model_may_be_that_of_another_one() -> None:
    shared = DownloadFile("mmproj", "https://h/mmproj", C, role="projector")
    model = ModelRecord("cortexso/evil:3b", "Evil", files=[shared])
    assert admit_download(job(shared), revoked(BY_MODEL), lambda id: model) is None


def test_a_load_is_refused_by_any_of_its_files_by_its_origin_and_without_one_by_its_id() -> None:
    found = revoked(BY_FILE, BY_MODEL, Revocation(id="r3", reason="old", model="jan-tiny"))
    files = [ModelFile("m.gguf", B, 1), ModelFile("mmproj.gguf", A, 1)]
    assert admit_load(ModelLoad("m", files), found, nothing) is not None
    assert admit_load(ModelLoad("m", files[:1]), found, nothing) is None
    assert admit_load(ModelLoad("m", files[:1], "cortexso/Evil:3b"), found, nothing) is not None
    assert admit_load(ModelLoad("jan-tiny", [ModelFile("t")]), found, nothing) is not None
    assert admit_load(ModelLoad("jan-tiny", files[:1], "somebody/else"), found, nothing) is None


def test_a_revoked_variant_is_taken_out_and_the_next_one_is_the_first_then() -> None:
    q4, q8 = ([DownloadFile(name, sha256=sha)] for name, sha in (("q4", A), ("q8", B)))
    model = ModelRecord("m", "M", files=q4, variants=[ModelVariant("q4", files=q4), ModelVariant("q8", files=q8)])
    left = without_revoked(model, revoked(BY_FILE))
    assert left is not None
    assert ([v.id for v in left.variants], left.files) == (["q8"], q8)
    assert without_revoked(model, revoked(BY_MODEL)) is model
    all_gone = revoked(BY_FILE, Revocation(id="r4", reason="x", sha256=B))
    assert without_revoked(model, all_gone) is None
    assert without_revoked(ModelRecord("plain", "P", files=q4), revoked(BY_FILE)) is None
    assert without_revoked(ModelRecord("Cortexso/Evil:3b", "E"), revoked(BY_MODEL)) is None


@pytest.mark.parametrize(("days", "said"), [(0, ""), (30, ""), (31, "31 days ago"), (400, "400 days ago")])
def test_revocations_that_nobody_confirmed_for_a_month_are_told(days: int, said: str) -> None:
    now = 1_800_000_000.0
    text = unconfirmed(now - days * DAY, now)
    assert (said in text) if said else text == ""


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_records_that_cannot_be_read_are_counted_and_hide_no_other(garbage: list[bytes]) -> None:
    good = canonical(to_builtins(BY_FILE))
    found = Revocations([*garbage, good])
    assert found.refusal(A) is not None
    assert found.unread <= len(garbage)


def test_ten_thousand_revocations_are_looked_up_in_microseconds() -> None:
    draw = random.Random(5)
    hashes = [f"{draw.getrandbits(256):064x}" for _ in range(10_000)]
    found = revoked(*(Revocation(id=f"r{i}", reason="x", sha256=sha, model=f"m/{i}") for i, sha in enumerate(hashes)))
    begun = time.perf_counter()
    for sha in hashes:
        assert found.refusal(sha.upper())
    assert (time.perf_counter() - begun) / len(hashes) < 50e-6

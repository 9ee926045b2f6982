"""The model store: imports are checked and atomic, ids cannot leave the folder, the embedded model stays."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

import os
import sys
from collections import namedtuple
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.embedded import EMBEDDED_ID, EMBEDDED_MODEL
from jan_llamacpp.errors import InvalidModelFile, InvalidModelId, ModelExists, ModelNotFound, ModelReadOnly
from jan_llamacpp.store import ModelStore, model_id

from jan_core.errors import StorageError

from .gguf_bytes import LLAMA, TENSORS, whole

pytestmark = pytest.mark.anyio

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    embedded = tmp_path / "embedded.gguf"
    embedded.write_bytes(whole())
    return ModelStore(tmp_path / "models", embedded=embedded)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "Some Model-Q8_0.gguf"
    path.write_bytes(whole())
    return path


async def test_an_imported_model_is_listed_with_what_its_header_says(store: ModelStore, source: Path) -> None:
    model = await store.take_in(source)
    assert model.id == "some-model-q8_0"
    assert (model.name, model.architecture, model.quantization, model.license) == (
        "Tiny",
        "llama",
        "Q8_0",
        "apache-2.0",
    )
    assert (model.context_length, model.size, model.state) == (256, source.stat().st_size, "available")
    assert Path(model.path).read_bytes() == source.read_bytes()
    assert [each.id for each in store.list()] == [EMBEDDED_ID, "some-model-q8_0"]
    assert store.get(model.id) == model


async def test_an_import_survives_the_source_being_deleted(store: ModelStore, source: Path) -> None:
    for share in (True, False):
        await store.take_in(source, id=f"m{share:d}", share=share)
    source.unlink()
    assert store.inspect("m0").architecture == store.inspect("m1").architecture == "llama"


async def test_a_copy_is_independent_of_its_source(store: ModelStore, source: Path) -> None:
    model = await store.take_in(source, share=False)
    source.write_bytes(b"overwritten in place")
    assert store.inspect(model.id).n_vocab == 3


async def test_a_copy_reports_its_bytes(store: ModelStore, source: Path) -> None:
    seen: list[tuple[int, int]] = []
    await store.take_in(source, share=False, on_bytes=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (source.stat().st_size, source.stat().st_size)


async def test_a_damaged_file_is_refused_and_leaves_nothing(store: ModelStore, source: Path) -> None:
    source.write_bytes(whole()[:-1])
    with pytest.raises(InvalidModelFile, match="truncated: 1 bytes missing"):
        await store.take_in(source)
    assert [model.id for model in store.list()] == [EMBEDDED_ID]


async def test_one_part_of_a_split_model_without_the_name_of_one_is_refused(store: ModelStore, source: Path) -> None:
    source.write_bytes(whole(LLAMA | {"split.count": 2}))
    with pytest.raises(InvalidModelFile, match=r"names must end in -00001-of-00002\.gguf") as caught:
        await store.take_in(source)
    assert caught.value.reason == "shard"


async def test_the_same_id_cannot_be_taken_twice(store: ModelStore, source: Path) -> None:
    await store.take_in(source)
    with pytest.raises(ModelExists):
        await store.take_in(source)


async def test_concurrent_imports_of_one_id_give_one_model(store: ModelStore, source: Path) -> None:
    outcomes: list[str] = []

    async def one() -> None:
        try:
            outcomes.append((await store.take_in(source, share=False)).id)
        except ModelExists as error:
            outcomes.append(error.type)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert sorted(outcomes) == ["model_exists"] * 4 + ["some-model-q8_0"]
    assert not list(Path(store.get("some-model-q8_0").path).parent.parent.glob(".staging-*"))


async def test_a_cancelled_import_leaves_nothing(
    store: ModelStore, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jan_llamacpp.files._CHUNK", 64)
    with anyio.CancelScope() as scope:
        await store.take_in(source, share=False, on_bytes=lambda done, total: scope.cancel())
    assert scope.cancelled_caught
    assert list((tmp_path / "models").iterdir()) == []


async def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path, source: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        await ModelStore(tmp_path / "models").take_in(source)


async def test_a_deleted_model_is_gone_and_its_id_free(store: ModelStore, source: Path, tmp_path: Path) -> None:
    model = await store.take_in(source)
    store.delete(model.id)
    with pytest.raises(ModelNotFound) as caught:
        store.get(model.id)
    assert caught.value.data["known"] == [EMBEDDED_ID]
    assert list((tmp_path / "models").iterdir()) == []
    assert source.exists()
    await store.take_in(source)


async def test_the_embedded_model_can_be_neither_deleted_nor_replaced(store: ModelStore, source: Path) -> None:
    with pytest.raises(ModelReadOnly):
        store.delete(EMBEDDED_ID)
    with pytest.raises(ModelReadOnly):
        await store.take_in(source, id=EMBEDDED_ID)
    assert store.get(EMBEDDED_ID).embedded


@pytest.mark.parametrize(
    "id",
    ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "A", "a..b", ".hidden", "a.", "-a", "a" * 97, "con",
     "nul.gguf", "a b", "é", "a\n", "a\x00"],
)  # fmt: skip
async def test_an_id_that_is_no_id_is_refused_everywhere(store: ModelStore, source: Path, id: str) -> None:
    with pytest.raises(InvalidModelId):
        await store.take_in(source, id=id)
    with pytest.raises(ModelNotFound):
        store.get(id)
    with pytest.raises(ModelNotFound):
        store.delete(id)


@given(st.text(max_size=120))
def test_any_file_name_gives_a_good_id_or_a_refusal(name: str) -> None:
    try:
        id = model_id(name)
    except InvalidModelId:
        return
    assert id == model_id(id + ".gguf")
    assert Path(id).name == id
    assert not id.startswith(".")


async def test_a_model_whose_file_is_gone_is_listed_as_failed(store: ModelStore, source: Path) -> None:
    model = await store.take_in(source)
    Path(model.path).unlink()
    assert (store.get(model.id).state, store.get(model.id).error) == (
        "failed",
        "its file some-model-q8_0.gguf is gone",
    )
    with pytest.raises(InvalidModelFile, match="is gone"):
        store.inspect(model.id)


async def test_a_model_whose_file_was_cut_is_listed_as_failed(store: ModelStore, source: Path) -> None:
    model = await store.take_in(source, share=False)
    os.truncate(model.path, 100)
    assert store.get(model.id).error == f"its file {model.id}.gguf has 100 bytes instead of {model.size}"


async def test_folders_without_a_record_do_not_count_and_are_no_obstacle(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    half = tmp_path / "models" / "some-model-q8_0"
    half.mkdir(parents=True)
    (half / "rest.gguf").write_bytes(b"x")
    assert [model.id for model in store.list()] == [EMBEDDED_ID]
    assert (await store.take_in(source)).id == half.name


@pytest.mark.parametrize("torn", [b"{ torn", b"", b"[" * 5000, b'{"id": 7}', b"\xff\xfe"])
async def test_a_torn_record_is_told_with_what_to_do_and_importing_again_mends_it(
    store: ModelStore, source: Path, torn: bytes
) -> None:
    model = await store.take_in(source)
    (Path(model.path).parent / "model.json").write_bytes(torn)
    [_, listed] = store.list()
    assert (listed.id, listed.state, listed.size) == (model.id, "failed", model.size)
    assert listed.error.startswith("model.json is damaged: ")
    assert listed.error.endswith(f"import it again (its file is {model.path}), or delete it")
    with pytest.raises(InvalidModelFile, match=r"model\.json is damaged"):
        store.inspect(model.id)
    assert (await store.take_in(source)).state == "available"


async def test_a_model_with_a_torn_record_can_be_deleted(store: ModelStore, source: Path) -> None:
    model = await store.take_in(source)
    (Path(model.path).parent / "model.json").write_bytes(b"{ torn")
    store.delete(model.id)
    assert [each.id for each in store.list()] == [EMBEDDED_ID]


@pytest.mark.parametrize(
    "changed", [{"file": "../../secret"}, {"id": "other"}, {"projector": {"name": "a/b", "size": 1}}]
)
async def test_a_record_cannot_point_outside_its_folder(
    store: ModelStore, source: Path, changed: dict[str, object]
) -> None:
    model = await store.take_in(source)
    record = Path(model.path).parent / "model.json"
    content = msgspec.json.decode(record.read_bytes())
    record.write_bytes(msgspec.json.encode(content | changed))
    assert store.get(model.id).state == "failed"
    assert "secret" not in store.get(model.id).path
    with pytest.raises(InvalidModelFile):
        store.inspect(model.id)


async def test_a_path_with_blanks_and_letters_of_any_script_is_taken_in(tmp_path: Path) -> None:
    folder = tmp_path / "Mödelle für 模型 🙂"
    folder.mkdir()
    source = folder / "Ein Modell – 中文.gguf"
    source.write_bytes(whole())
    store = ModelStore(folder / "models here", embedded=tmp_path / "absent.gguf")
    model = await store.take_in(source)
    assert model.id == "ein-modell"
    assert store.inspect(model.id).architecture == "llama"


async def test_a_disk_without_room_is_told_before_anything_is_copied(
    store: ModelStore, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(10, 7, 3))
    with pytest.raises(StorageError, match="the disk has 3 free") as caught:
        await store.take_in(source, share=False)
    assert (caught.value.data["needed"], caught.value.data["free"]) == (source.stat().st_size, 3)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE stands for a disk that fills up")
async def test_a_disk_that_fills_up_leaves_nothing(store: ModelStore, source: Path, tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StorageError, match="could not be stored"):
            await store.take_in(source, share=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "models").iterdir()) == []


async def test_what_is_kept_for_a_load_survives_and_the_embedded_model_keeps_nothing(
    store: ModelStore, source: Path
) -> None:
    model = await store.take_in(source)
    assert store.configure(model.id, {"n_ctx": 512}).options == {"n_ctx": 512}
    assert store.get(model.id).options == {"n_ctx": 512}
    with pytest.raises(ModelReadOnly):
        store.configure(EMBEDDED_ID, {"n_ctx": 512})


async def test_what_a_crash_left_is_swept_after_a_day(store: ModelStore, source: Path, tmp_path: Path) -> None:
    await store.take_in(source)
    for name in (".staging-abc", ".trash-def"):
        (tmp_path / "models" / name).mkdir()
        (tmp_path / "models" / name / "part.gguf").write_bytes(b"x")
    os.utime(tmp_path / "models" / ".trash-def", (0, 0))
    store.sweep()
    left = sorted(entry.name for entry in (tmp_path / "models").iterdir())
    assert left == [".staging-abc", "some-model-q8_0"]


def test_without_the_embedded_file_the_list_is_empty(tmp_path: Path) -> None:
    assert ModelStore(tmp_path, embedded=tmp_path / "absent.gguf").list() == []


def test_a_damaged_embedded_model_is_listed_as_failed(tmp_path: Path) -> None:
    embedded = tmp_path / "e.gguf"
    embedded.write_bytes(whole(LLAMA, TENSORS)[:-5])
    [model] = ModelStore(tmp_path / "models", embedded=embedded).list()
    assert model.state == "failed"
    assert "truncated" in model.error


def test_the_package_names_its_embedded_model() -> None:
    assert EMBEDDED_MODEL.name == "jan-tiny.gguf"


@pytest.mark.anyio
async def test_an_import_deletes_no_model_of_a_newer_version(tmp_path: Path, babble: Path) -> None:
    store = ModelStore(tmp_path / "models")
    await store.take_in(babble, id="mine")
    record = tmp_path / "models" / "mine" / "model.json"
    record.write_bytes(record.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(StorageError, match="cannot read"):
        await store.take_in(babble, id="mine")
    assert b'"format": 2' in record.read_bytes()
    assert (record.parent / "mine.gguf").is_file()

"""Models of several files: split ones, projectors, adapters; taken in together, told of together, deleted together."""

# ruff: noqa: ASYNC240 (a test has its event loop to itself)
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.errors import InvalidModelFile, ModelExists, ModelNotFound
from jan_llamacpp.gguf import read_model, shard_name, shards_of
from jan_llamacpp.store import ModelStore

from .gguf_bytes import LLAMA, TENSORS, whole

pytestmark = pytest.mark.anyio

CLIP: dict[str, Any] = {"general.architecture": "clip", "general.type": "mmproj", "clip.vision.projection_dim": 32}
EYE = [("v.patch_embd.weight", [32, 32], 0)]
LORA: dict[str, Any] = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
TWIST = [("blk.0.attn_q.weight.lora_a", [32, 4], 0), ("blk.0.attn_q.weight.lora_b", [4, 32], 0)]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", embedded=tmp_path / "absent.gguf")


def split(folder: Path, name: str = "Big Model") -> list[Path]:
    """A model in three files, as llama-gguf-split makes them: the metadata is in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / shard_name(name, number, 3) for number in range(3)]
    for number, file in enumerate(files):
        metadata = LLAMA if number == 0 else {}
        file.write_bytes(whole({**metadata, "split.no": number, "split.count": 3}, [TENSORS[number]]))
    return files


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return split(tmp_path / "from here")


def written(path: Path, metadata: dict[str, Any], tensors: list[tuple[str, list[int], int]]) -> Path:
    path.write_bytes(whole(metadata, tensors))
    return path


@pytest.mark.parametrize("given", [0, 1, 2])
async def test_a_split_model_is_taken_in_whole_whichever_file_is_named(
    store: ModelStore, shards: list[Path], given: int
) -> None:
    model = await store.take_in(shards[given])
    assert (model.id, model.files, model.state) == ("big-model", 3, "available")
    assert model.size == sum(shard.stat().st_size for shard in shards)
    assert model.parameters == 3 * 32 + 2 * 32 * 32
    kept = shards_of(Path(model.path))
    assert [file.name for file in kept] == [f"big-model-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert [file.read_bytes() for file in kept] == [shard.read_bytes() for shard in shards]
    assert (store.inspect(model.id).kind, store.inspect(model.id).n_tensors) == ("model", 3)


async def test_a_missing_part_is_named(store: ModelStore, shards: list[Path], tmp_path: Path) -> None:
    shards[1].unlink()
    with pytest.raises(InvalidModelFile, match=r"Big Model-00002-of-00003\.gguf is missing") as caught:
        await store.take_in(shards[0])
    assert caught.value.reason == "shard"
    assert not (tmp_path / "models").exists()


async def test_parts_in_the_wrong_place_are_told(store: ModelStore, shards: list[Path]) -> None:
    shards[1].write_bytes(shards[2].read_bytes())
    with pytest.raises(InvalidModelFile, match="says of itself that it is file 3 of 3"):
        await store.take_in(shards[0])


async def test_a_split_model_without_all_its_blocks_is_refused(store: ModelStore, shards: list[Path]) -> None:
    written(shards[2], {"split.no": 2, "split.count": 3}, [("x.weight", [32, 32], 8)])
    with pytest.raises(InvalidModelFile, match="2 blocks are promised, but 1 have no tensors"):
        await store.take_in(shards[0])


async def test_a_tensor_in_two_parts_is_refused(shards: list[Path]) -> None:
    written(shards[2], {"split.no": 2, "split.count": 3}, [TENSORS[1]])
    with pytest.raises(InvalidModelFile, match="in more than one file"):
        read_model(shards[0])


async def test_a_part_that_is_gone_makes_the_model_failed_and_deleting_takes_all(
    store: ModelStore, shards: list[Path], tmp_path: Path
) -> None:
    model = await store.take_in(shards[0])
    shards_of(Path(model.path))[2].unlink()
    assert store.get(model.id).error == "its file big-model-00003-of-00003.gguf is gone"
    store.delete(model.id)
    assert list((tmp_path / "models").iterdir()) == []


async def test_a_split_models_progress_goes_over_all_files(store: ModelStore, shards: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    await store.take_in(shards[0], share=False, on_bytes=lambda done, total: seen.append((done, total)))
    total = sum(shard.stat().st_size for shard in shards)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


async def test_the_projector_beside_a_model_is_taken_in_with_it(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "sees.gguf", LLAMA, TENSORS)
    eye = written(tmp_path / "mmproj-sees-f16.gguf", CLIP, EYE)
    model = await store.take_in(source)
    assert Path(model.projector).name == "mmproj-sees.gguf"
    assert Path(model.projector).read_bytes() == eye.read_bytes()
    assert (await store.take_in(source, id="blind", find_projector=False)).projector == ""
    store.delete(model.id)
    assert not Path(model.projector).exists()


async def test_a_projector_beside_it_that_is_another_models_is_left_alone(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "m.gguf", LLAMA, TENSORS)
    wrong = written(tmp_path / "mmproj-other.gguf", CLIP | {"clip.vision.projection_dim": 48}, EYE)
    assert (await store.take_in(source)).projector == ""
    with pytest.raises(InvalidModelFile, match="embeddings of 48 numbers; Tiny takes 32") as caught:
        await store.take_in(source, id="forced", projector=wrong)
    assert caught.value.reason == "mismatch"


async def test_of_two_projectors_that_fit_none_is_guessed(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "m.gguf", LLAMA, TENSORS)
    eyes = [written(tmp_path / f"mmproj-{kind}.gguf", CLIP, EYE) for kind in ("f16", "q8_0")]
    assert (await store.take_in(source, id="a")).projector == ""
    assert (await store.take_in(source, id="b", projector=eyes[1])).projector


async def test_a_file_that_is_no_projector_is_refused_as_one(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "m.gguf", LLAMA, TENSORS)
    with pytest.raises(InvalidModelFile, match="is no projector"):
        await store.take_in(source, projector=source)


async def test_an_adapter_belongs_to_the_model_it_was_taken_in_for(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "m.gguf", LLAMA, TENSORS)
    lora = written(tmp_path / "Pirate Speech.gguf", LORA, TWIST)
    await store.take_in(source)
    model = await store.take_in_adapter(lora, "m")
    [adapter] = model.adapters
    assert (adapter.id, adapter.size) == ("pirate-speech", lora.stat().st_size)
    assert Path(adapter.path).read_bytes() == lora.read_bytes()
    assert store.get("m").adapters == [adapter]
    with pytest.raises(ModelExists):
        await store.take_in_adapter(lora, "m")
    with pytest.raises(ModelNotFound, match="it has: pirate-speech"):
        store.delete_adapter("m", "other")
    store.delete_adapter("m", "pirate-speech")
    assert store.get("m").adapters == []
    assert not Path(adapter.path).exists()


async def test_an_adapter_of_another_architecture_or_for_nobody_is_refused(store: ModelStore, tmp_path: Path) -> None:
    source = written(tmp_path / "m.gguf", LLAMA, TENSORS)
    lora = written(tmp_path / "lora.gguf", LORA | {"general.architecture": "qwen2"}, TWIST)
    await store.take_in(source)
    with pytest.raises(InvalidModelFile, match="for qwen2 models; Tiny is llama"):
        await store.take_in_adapter(lora, "m")
    with pytest.raises(InvalidModelFile, match="imported for an installed model"):
        await store.take_in(lora)
    with pytest.raises(InvalidModelFile, match="is no adapter"):
        await store.take_in_adapter(source, "m")

"""A file that another program fetched already costs no byte of the network."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from .faultserver import FaultServer
from .house import OpenHouse, content, sha256

HUB = ".cache/huggingface/hub/models--owner--name"
JAN = ".local/share/Jan/data/llamacpp/models"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, nobody_home: None, tmp_path: Path) -> Path:
    """A home that programs keep their files in as they usually do."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS",
                 "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE", "JAN_DATA_FOLDER"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def corpus(count: int) -> list[bytes]:
    """Files of two sizes only, so that a size alone decides nothing."""
    return [random.Random(seed).randbytes(300_000 + seed % 2) for seed in range(count)]


async def test_every_file_of_a_mixed_corpus_is_found_and_the_server_is_never_asked(
    open_house: OpenHouse, home: Path, server: FaultServer
) -> None:
    files = corpus(12)
    places = [
        ("Hugging Face cache", f"{HUB}/blobs/{sha256(files[0])}"),
        ("Hugging Face cache", f"{HUB}/blobs/{hashlib.sha1(files[1]).hexdigest()}"),
        ("Hugging Face cache", f"{HUB}/snapshots/c0ffee/deep/model.gguf"),
        ("Ollama", f".ollama/models/blobs/sha256-{sha256(files[3])}"),
        ("LM Studio", ".lmstudio/models/owner/name/a.gguf"),
        ("LM Studio", "on another disk/owner/name/b.gguf"),
        ("Jan", f"{JAN}/owner/name/model.gguf"),
        ("Jan", f"{JAN}/no-hash/model.gguf"),
        ("Jan", "somewhere/imported.gguf"),
        ("llama.cpp", ".cache/llama.cpp/owner_name.gguf"),
        ("~/mine", "mine/deep/er/any name at all"),
        ("~/mine", "mine/other.bin"),
    ]
    for (_, path), data in zip(places, files, strict=True):
        put(home / path, data)
    put(home / ".lmstudio/settings.json", f'{{"downloadsFolder": "{home}/on another disk"}}'.encode())
    record = f"model_path: llamacpp/models/owner/name/model.gguf\nmodel_sha256: {sha256(files[6])}\n"
    put(home / f"{JAN}/owner/name/model.yml", record.encode())
    put(
        home / f"{JAN}/other/model.yml", f"model_path: {home}/{places[8][1]}\nmodel_sha256: {sha256(files[8])}".encode()
    )
    for number, data in enumerate(files):  # what looks right and is not
        put(home / f".lmstudio/models/them/wrong/{number}.gguf", bytes(len(data)))
        put(home / f"{HUB}/blobs/{sha256(data)}.incomplete", data)
        put(home / f"mine/{number}.part", data)
    async with open_house(adopt_folders=["~/mine"]) as house:
        origins = []
        for number, data in enumerate(files):
            file = {"name": f"{number}.gguf", "url": server.url("/none"), "sha256": sha256(data), "size": len(data)}
            job = await house.call("start", file=file, wait=True)
            assert (job["state"], job["verified"]) == ("completed", True)
            assert content(job) == data
            origins.append(job["origin"])
    assert origins == [origin for origin, _ in places]
    assert server.requests == []
    assert server.connections == 0
    for (_, path), data in zip(places, files, strict=True):
        assert (home / path).read_bytes() == data


async def test_a_copy_with_one_wrong_byte_is_not_believed_and_the_file_is_fetched(
    open_house: OpenHouse, home: Path, server: FaultServer, data: bytes
) -> None:
    wrong = bytes([data[0] ^ 1]) + data[1:]
    put(home / f".ollama/models/blobs/sha256-{sha256(data)}", wrong)
    url = server.serve("/file", data)
    async with open_house() as house:
        job = await house.start(url, data, wait=True)
        assert (job["state"], job["origin"]) == ("completed", "")
        assert content(job) == data
    assert (home / f".ollama/models/blobs/sha256-{sha256(data)}").read_bytes() == wrong


async def test_nothing_is_adopted_when_that_is_switched_off(
    open_house: OpenHouse, home: Path, server: FaultServer, data: bytes
) -> None:
    put(home / f".ollama/models/blobs/sha256-{sha256(data)}", data)
    url = server.serve("/file", data)
    async with open_house(adopt=False) as house:
        job = await house.start(url, data, wait=True)
        assert job["origin"] == ""
    assert server.sent("/file") >= len(data)


async def test_a_file_without_any_url_is_had_from_this_machine(open_house: OpenHouse, home: Path, data: bytes) -> None:
    put(home / f".ollama/models/blobs/sha256-{sha256(data)}", data)
    async with open_house() as house:
        file: dict[str, Any] = {"name": "m.gguf", "url": "", "sha256": sha256(data), "size": 0}
        job = await house.call("start", file=file, wait=True)
        assert (job["state"], job["origin"], job["bytes_total"]) == ("completed", "Ollama", len(data))


async def test_whoever_has_the_adopted_file_knows_whose_it_is(
    open_house: OpenHouse, home: Path, server: FaultServer, data: bytes
) -> None:
    put(home / f".ollama/models/blobs/sha256-{sha256(data)}", data)
    url = server.serve("/file", data)
    async with open_house() as house:
        first = await house.start(url, data, destination="first.bin", wait=True)
        second = await house.start(url, data, destination="second.bin", wait=True)
        assert (first["origin"], second["origin"]) == ("Ollama", "Ollama")
        await house.call("remove", id=first["id"])
        damaged = bytes([data[0] ^ 1]) + data[1:]
        put(Path(second["path"]), damaged)
        assert not (await house.call("verify", id=second["id"], repair=True))["ok"]
        second = await house.until(second["id"], "completed")
        assert content(second) == data
    assert (home / f".ollama/models/blobs/sha256-{sha256(data)}").read_bytes() == damaged

"""Where other programs keep files, and that looking there is bounded, quiet and remembered."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from jan_download.adopt.finder import find, known_hashes
from jan_download.adopt.folders import Search, unfinished
from jan_download.adopt.places import Places
from jan_download.settings import DownloadSettings
from jan_download.storage.store import Store

CONTENT = b"GGUF" + bytes(range(256)) * 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = bytes(reversed(CONTENT))


class Machine:
    """A home, and what its programs have."""

    def __init__(self, root: Path) -> None:
        self.home = root / "their home"
        self.home.mkdir()
        self.store = Store(root / "data")
        self.environment = {"HOME": str(self.home)}

    def put(self, path: str | Path, content: bytes = CONTENT) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def find(self, size: int = len(CONTENT), **settings: object) -> list[tuple[str, str]]:
        return [
            (copy.origin, copy.path)
            for copy in find(SHA256, size, DownloadSettings(**settings), self.environment, self.store)  # type: ignore[arg-type]
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_found_on_a_machine_that_has_nothing(machine: Machine) -> None:
    assert machine.find() == []


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("", ".cache/huggingface/hub"),
        ("HF_HOME", "hf/hub"),
        ("HF_HUB_CACHE", "hubs"),
        ("HUGGINGFACE_HUB_CACHE", "older"),
        ("XDG_CACHE_HOME", "cache/huggingface/hub"),
    ],
)
def test_a_blob_of_the_hugging_face_cache_is_found_by_its_name(machine: Machine, variable: str, folder: str) -> None:
    if variable:
        places = {"HF_HOME": "hf", "XDG_CACHE_HOME": "cache"}
        machine.environment[variable] = str(machine.home / places.get(variable, folder))
    machine.put(f"{folder}/models--a--b/blobs/{hashlib.sha256(b'x').hexdigest()}")
    blob = machine.put(f"{folder}/models--a--c/blobs/{SHA256}")
    assert machine.find(size=0) == [("Hugging Face cache", str(blob))]


def test_a_small_file_of_that_cache_whose_name_is_no_sha256_is_found_by_its_size(machine: Machine) -> None:
    blob = machine.put(f".cache/huggingface/hub/models--a--b/blobs/{'a' * 40}")
    snapshot = machine.home / ".cache/huggingface/hub/models--a--b/snapshots/c0ffee/tokenizer.json"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    assert machine.find() == [("Hugging Face cache", str(blob))]


def test_a_file_of_that_cache_is_found_where_links_cannot_be_made(machine: Machine) -> None:
    file = machine.put(".cache/huggingface/hub/models--a--b/snapshots/c0ffee/sub/model.gguf")
    assert machine.find() == [("Hugging Face cache", str(file))]


@pytest.mark.parametrize("chosen", ["", "{home}/elsewhere", '"{home}/elsewhere"', "~/elsewhere"])
def test_a_blob_of_ollama_is_found_by_its_name(machine: Machine, chosen: str) -> None:
    if chosen:
        machine.environment["OLLAMA_MODELS"] = chosen.format(home=machine.home)
    blob = machine.put(f"{'elsewhere' if chosen else '.ollama/models'}/blobs/sha256-{SHA256}")
    assert machine.find(size=0) == [("Ollama", str(blob))]


@pytest.mark.parametrize(
    ("home", "pointer"), [(".lmstudio", ""), (".cache/lm-studio", ""), ("apps/studio", "apps/studio")]
)
def test_a_model_of_lm_studio_is_found_by_its_size(machine: Machine, home: str, pointer: str) -> None:
    if pointer:
        (machine.home / ".lmstudio-home-pointer").write_text(f"{machine.home / pointer}\n")
    machine.put(f"{home}/models/them/model/other.gguf", OTHER + b"!")
    file = machine.put(f"{home}/models/them/model/file.gguf")
    assert machine.find() == [("LM Studio", str(file))]
    assert machine.find(size=0) == []


def test_the_folder_that_lm_studio_is_set_to_is_looked_through(machine: Machine) -> None:
    settings = json.dumps({"downloadsFolder": str(machine.home / "big disk"), "language": "en"})
    machine.put(".lmstudio/settings.json", settings.encode())
    file = machine.put("big disk/them/model/file.gguf")
    assert machine.find() == [("LM Studio", str(file))]


@pytest.mark.parametrize(
    "line",
    [
        "model_path: llamacpp/models/a/b/model.gguf",
        "model_path: 'llamacpp/models/a/b/model.gguf'",
        'model_path: "llamacpp/models/a/b/model.gguf"',
        "model_path: {data}/llamacpp/models/a/b/model.gguf # where it is",
    ],
)
@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_a_model_of_jan_is_found_by_its_record(machine: Machine, line: str, size: int) -> None:
    data = machine.home / ".local/share/Jan/data"
    file = machine.put(data / "llamacpp/models/a/b/model.gguf")
    text = f"name: a\n{line.format(data=data)}\nmodel_sha256: {SHA256.upper()}\nmodel_size_bytes: {len(CONTENT)}\n"
    machine.put(data / "llamacpp/models/a/b/model.yml", text.encode())
    machine.put(data / "llamacpp/models/c/model.yml", b"model_path: nowhere\nmodel_sha256:\n\xff")
    assert machine.find(size=size) == [("Jan", str(file))]


@pytest.mark.parametrize("place", ["variable", "settings", "legacy", "electron", "scan path"])
def test_each_place_where_jan_keeps_its_data_is_known(machine: Machine, place: str) -> None:
    data = machine.home / "moved"
    if place == "variable":
        machine.environment["JAN_DATA_FOLDER"] = str(data)
    elif place == "settings":
        machine.put(".local/share/Jan/settings.json", json.dumps({"data_folder": str(data)}).encode())
    elif place == "legacy":
        machine.put(".config/Jan/settings.json", json.dumps({"data_folder": str(data)}).encode())
    elif place == "electron":
        data = machine.home / "jan"
    else:
        settings = {"data_folder": "./data", "gguf_scan_paths": ["relative", str(data)]}
        machine.put(".local/share/Jan/settings.json", json.dumps(settings).encode())
    file = machine.put(data / "models/m/model.gguf")
    assert machine.find() == [("Jan", str(file))]


@pytest.mark.parametrize("variable", ["", "LLAMA_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_of_llama_cpp_is_looked_through(machine: Machine, variable: str) -> None:
    folders = {"": ".cache/llama.cpp", "LLAMA_CACHE": "mine", "XDG_CACHE_HOME": "caches/llama.cpp"}
    if variable:
        machine.environment[variable] = str(machine.home / folders[variable].partition("/")[0])
    file = machine.put(f"{folders[variable]}/owner_repo_model.gguf")
    assert machine.find() == [("llama.cpp", str(file))]


def test_a_folder_of_the_settings_is_looked_through_first(machine: Machine) -> None:
    machine.put(".lmstudio/models/a/b/model.gguf")
    file = machine.put("my models/deep/down/model.gguf")
    chosen = str(machine.home / "my models")
    assert machine.find(adopt_folders=["not absolute", "~/nowhere", chosen])[0] == (chosen, str(file))
    assert machine.find(adopt_folders=["~/my models"])[0] == ("~/my models", str(file))


@pytest.mark.parametrize(
    ("platform", "environment", "data", "cache"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share", "/h/.cache"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "relative"}, "/d", "/h/.cache"),
        ("darwin", {"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/h/Library/Application Support", "/h/Library/Caches"),
        ("win32", {"USERPROFILE": "/h", "APPDATA": "/r", "LOCALAPPDATA": "/l"}, "/r", "/l"),
        ("linux", {}, None, None),
    ],
)
def test_each_system_has_its_own_folders(
    platform: str, environment: dict[str, str], data: str | None, cache: str | None
) -> None:
    places = Places(environment, platform)
    assert (places.data, places.cache) == (data and Path(data), cache and Path(cache))


LINES = st.lists(
    st.tuples(st.sampled_from(["model_path", "model_sha256", "mmproj_path", "mmproj_sha256", "x"]), st.text())
    .map(lambda pair: f"{pair[0]}: {pair[1]}")
    .map(str.encode)
).map(b"\n".join)
SETTINGS = st.dictionaries(
    st.sampled_from(["downloadsFolder", "data_folder", "gguf_scan_paths"]),
    st.one_of(st.text(), st.text().map(lambda text: f"/nowhere/{text}"), st.none(), st.lists(st.text())),
).map(lambda value: json.dumps(value).encode())


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    record=st.one_of(st.binary(), LINES),
    settings=st.one_of(st.binary(), SETTINGS),
    pointer=st.one_of(st.binary(), st.text().map(lambda text: f"/nowhere/{text}".encode())),
)
@hypothesis.example(
    b"model_path: '\0'", b'{"downloadsFolder": "/nowhere/\\u0000", "gguf_scan_paths": ["/nowhere/\\u0000"]}', b"/\0"
)
def test_what_other_programs_write_in_their_files_does_no_harm(
    machine: Machine, record: bytes, settings: bytes, pointer: bytes
) -> None:
    machine.put(".local/share/Jan/data/llamacpp/models/a/model.yml", record + f"\nmodel_sha256: {SHA256}".encode())
    machine.put(".local/share/Jan/settings.json", settings)
    machine.put(".lmstudio/settings.json", settings)
    machine.put(".lmstudio-home-pointer", pointer)
    blob = machine.put(f".ollama/models/blobs/sha256-{SHA256}")
    assert ("Ollama", str(blob)) in machine.find()


def test_nothing_is_looked_for_when_that_is_switched_off_or_no_hash_is_known(machine: Machine) -> None:
    machine.put(f".ollama/models/blobs/sha256-{SHA256}")
    assert machine.find(adopt=False) == []
    assert list(find("", len(CONTENT), DownloadSettings(), machine.environment, machine.store)) == []


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf.incomplete",
        "model.gguf.part",
        "model.gguf.tmp",
        "model.gguf.downloadInProgress",
        "model.gguf.crdownload",
        f"sha256-{SHA256}-partial",
        f"sha256-{SHA256}-partial-3",
    ],
)
def test_what_another_program_is_fetching_is_left_alone(machine: Machine, name: str) -> None:
    machine.put(f".ollama/models/blobs/{name}")
    machine.put(f".lmstudio/models/a/b/{name}")
    assert unfinished(name)
    assert machine.find() == []


def test_a_file_beside_which_aria2_keeps_its_notes_is_left_alone(machine: Machine) -> None:
    machine.put("models/model.gguf")
    notes = machine.put("models/model.gguf.aria2", b"notes")
    assert machine.find(adopt_folders=["~/models"]) == []
    notes.unlink()
    assert len(machine.find(adopt_folders=["~/models"])) == 1


def test_a_blob_of_another_size_is_not_the_file(machine: Machine) -> None:
    machine.put(f".ollama/models/blobs/sha256-{SHA256}", CONTENT[:-1])
    assert machine.find() == []


def test_a_file_named_by_another_hash_is_not_read(machine: Machine) -> None:
    machine.put(f"models/sha256-{hashlib.sha256(OTHER).hexdigest()}", OTHER)
    machine.put(f"models/{hashlib.sha256(OTHER).hexdigest()}", OTHER)
    assert machine.find(adopt_folders=["~/models"]) == []


def test_the_same_file_under_many_names_comes_once(machine: Machine) -> None:
    blob = machine.put(f".ollama/models/blobs/sha256-{SHA256}")
    for name in ("one.gguf", "two.gguf"):
        link = machine.home / ".lmstudio/models/a/b" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    os.link(blob, machine.home / ".lmstudio/models/a/b/three.gguf")
    assert machine.find() == [("Ollama", str(blob))]


def test_folders_that_lead_into_each_other_are_entered_once(machine: Machine) -> None:
    file = machine.put("models/a/model.gguf")
    (machine.home / "models/a/up").symlink_to(machine.home / "models")
    (machine.home / "models/self").symlink_to(machine.home / "models/self")
    (machine.home / "models/gone").symlink_to(machine.home / "nowhere")
    assert machine.find(adopt_folders=["~/models"]) == [("~/models", str(file))]


def test_a_pipe_is_not_opened_and_what_cannot_be_read_is_passed_over(machine: Machine) -> None:
    file = machine.put("models/b/model.gguf")
    os.mkfifo(machine.home / "models/pipe")
    (machine.home / ".lmstudio").mkdir()
    os.mkfifo(machine.home / ".lmstudio/settings.json")
    os.mkfifo(machine.home / ".lmstudio-home-pointer")
    closed = machine.home / "models/closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        assert machine.find(adopt_folders=["~/models"]) == [("~/models", str(file))]
    finally:
        closed.chmod(0o700)


def test_the_store_itself_is_not_another_program(machine: Machine) -> None:
    machine.put(machine.store.partials / "x")
    machine.put(machine.store.files / "model.gguf")
    assert machine.find(adopt_folders=[str(machine.store.root.parent)]) == []


def test_a_file_known_to_be_the_one_comes_first_and_one_known_to_be_another_not_at_all(machine: Machine) -> None:
    first, second, third = (machine.put(f"models/{name}.gguf") for name in "abc")
    known = known_hashes(machine.store)
    known.note(second, second.stat(), SHA256)
    known.note(first, first.stat(), "0" * 64)
    found = [path for _, path in machine.find(adopt_folders=["~/models"])]
    assert found == [str(second), str(third)]
    first.write_bytes(CONTENT)
    os.utime(first, ns=(1, 1))
    found = [path for _, path in machine.find(adopt_folders=["~/models"])]
    assert found[0] == str(second)
    assert sorted(found) == sorted(map(str, (first, second, third)))


def test_notes_that_are_damaged_are_begun_anew(machine: Machine) -> None:
    machine.store.root.mkdir()
    (machine.store.root / "adopted.json").write_bytes(b'{"/a": [1, 2')
    file = machine.put("models/a.gguf")
    known_hashes(machine.store).note(file, file.stat(), SHA256)
    assert known_hashes(machine.store).of(file) == SHA256
    assert [path.name for path in machine.store.root.iterdir()] == ["adopted.json"]


def test_only_so_many_notes_are_kept(machine: Machine) -> None:
    known = known_hashes(machine.store)
    status = machine.put("a").stat()
    for number in range(1002):
        known._known[f"/{number}"] = (0, 0, 0, "")
    known.note(machine.home / "a", status, SHA256)
    assert len(known._known) == 1000
    assert known.of(machine.home / "a") == SHA256


def test_a_look_ends_with_its_budget_of_names(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}").write_bytes(CONTENT)
    found = list(Search(SHA256, len(CONTENT), seconds=60, entries=10).below(tmp_path))
    assert len(found) == 9


def test_a_look_ends_with_its_budget_of_time(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}").write_bytes(CONTENT)
    now = iter(range(1000))
    found = list(Search(SHA256, len(CONTENT), seconds=20, clock=lambda: next(now)).below(tmp_path))
    assert 0 < len(found) < 20


def test_the_budget_of_time_begins_with_the_look(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(CONTENT)
    now = 0.0
    search = Search(SHA256, len(CONTENT), seconds=5, clock=lambda: now)
    now = 60.0  # a file that had the right name was hashed meanwhile, in vain
    assert len(list(search.below(tmp_path))) == 1


def test_a_folder_too_deep_is_not_entered(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"abcdefghijkl")
    deep.mkdir(parents=True)
    (deep / "model.gguf").write_bytes(CONTENT)
    assert list(Search(SHA256, len(CONTENT), seconds=60).below(tmp_path)) == []
    assert len(list(Search(SHA256, len(CONTENT), seconds=60).below(tmp_path / "a" / "b"))) == 1

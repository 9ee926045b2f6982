"""What somebody else left in the operator's folder or tree: it is named, it hangs nothing, and it leads nowhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from jan_registry.publish.errors import KeyUnusable, PublishInvalid, TreeDamaged
from jan_registry.publish.files import write
from jan_registry.publish.keys import load, load_public
from jan_registry.publish.reading import contents, plain_file
from jan_registry.publish.workspace import read_workspace

from .hubmaker import Hub, model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and links of POSIX")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(str(path))


def folder(path: Path) -> None:
    path.mkdir()


STRANGE = [pipe, device, terminal, listener, folder]


def in_time(work: Callable[[], object]) -> object:
    """What the work returns, or its exception, within seconds: a read that hangs must not hang the tests."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert outcome, "it hangs"
    return outcome[0]


@pytest.mark.parametrize("make", STRANGE)
def test_what_is_not_a_plain_file_is_a_problem_with_its_name(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    Path("models").mkdir()
    Path("registry.toml").write_text('name = "Example"\n')
    make(Path("models/p.toml"))
    make(Path("stats.toml"))
    held = in_time(lambda: read_workspace(Path()))
    reasons = [f"{file}: cannot be read: it is not a plain file" for file in ("stats.toml", "models/p.toml")]
    assert [str(problem) for problem in held.problems] == reasons  # type: ignore[attr-defined]


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text('name = "Example"\n')
    (tmp_path / "featured").write_text("")
    pipe(tmp_path / "models")
    assert list(map(str, read_workspace(tmp_path).problems)) == ["models: is not a folder", "featured: is not a folder"]


@pytest.mark.parametrize("make", [pipe, device])
def test_a_key_that_is_not_a_plain_file_is_unusable(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "root-1.pem")
    for opened in (lambda: load(tmp_path / "root-1.pem", None), lambda: load_public(tmp_path / "root-1.pem")):
        assert isinstance(error := in_time(opened), KeyUnusable)
        assert "not a plain file" in str(error)


def test_a_file_that_becomes_a_pipe_before_it_is_opened_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, look = tmp_path / "a.toml", Path.stat
    path.write_text("")

    def swap(self: Path, **options: bool) -> os.stat_result:
        found = look(self, **options)
        path.unlink()
        pipe(path)
        return found

    monkeypatch.setattr(Path, "stat", swap)
    assert isinstance(in_time(lambda: contents(path)), OSError)


def test_no_more_is_read_than_is_useful(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match="larger than 1048576 bytes"):
        contents(tmp_path / "large")
    (tmp_path / "small").write_bytes(b"abc")
    with plain_file(tmp_path / "small") as file:
        assert file.read() == contents(tmp_path / "small") == b"abc"


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.models("a").publish()
    return hub


@pytest.mark.parametrize(
    "order",
    [
        b'["../outside"]',
        b'["../../outside"]',
        b'["metadata/../../outside"]',
        b'["metadata/x.json", "targets/./../../outside"]',
        b'["/outside"]',
        b'["//outside"]',
        b'["metadata"]',
        b'["metadata/"]',
        b'[".publish.lock"]',
        b'["keys/a.pem"]',
        b'["metadata\\\\..\\\\..\\\\outside"]',
        b'["metadata/C:outside"]',
        b'["metadata/x\\u0000"]',
        b'["link/outside"]',
        b'["metadata/link/outside"]',
        b"[]",
        b"{}",
        b"[1]",
        b"not json",
        b"\xff",
    ],
)
def test_work_that_no_publication_left_writes_nothing_outside_the_tree(hub: Hub, tmp_path: Path, order: bytes) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    staged = hub.tree / ".staged"
    staged.mkdir()
    (hub.tree / "metadata/link").symlink_to(elsewhere)
    (hub.tree / "link").symlink_to(elsewhere)
    for number in range(2):
        (staged / str(number)).write_text("mine")
    (staged / "order.json").write_bytes(order)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TreeDamaged, match=r"order\.json|in its place") as refused:
        hub.models("a", "b").publish()
    assert "mine" not in refused.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["deltas", "metadata", "targets", ".staged"])
def test_a_tree_whose_folders_are_links_is_not_written_to(hub: Hub, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (hub.tree / name).is_dir():
        (hub.tree / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (hub.tree / name).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(TreeDamaged, match=f"{name}: it is a link"):
        hub.models("a", "b").publish()
    assert sorted(elsewhere.rglob("*")) == before


def test_a_staged_link_does_not_put_a_private_file_where_everybody_reads_it(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "private.pem").write_text("secret")
    staged = hub.tree / ".staged"
    staged.mkdir()
    (staged / "0").symlink_to(tmp_path / "private.pem")
    (staged / "order.json").write_text('["targets/shown"]')
    with pytest.raises(TreeDamaged, match="not a plain file"):
        hub.publish()
    assert not (hub.tree / "targets/shown").is_symlink()


def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".a.toml.new").symlink_to(tmp_path / "precious")
    write(tmp_path / "a.toml", b"new")
    assert (tmp_path / "precious").read_text() == "x"
    assert (tmp_path / "a.toml").read_text() == "new"


def test_a_piece_list_that_is_something_else_is_not_published(hub: Hub, tmp_path: Path) -> None:
    name = "ab" * 32
    (tmp_path / "private.pem").write_text("secret")
    hub.pieces.mkdir()
    (hub.pieces / f"{name}.bin").symlink_to(tmp_path / "private.pem")
    record = model("a")
    record["files"][0]["pieces"] = {"len": 8 << 20, "n": 1, "sha256": name, "target": f"pieces/{name}.bin"}
    with pytest.raises(PublishInvalid, match="not the piece list that its name says"):
        hub.models(record).publish()
    assert not list(hub.tree.glob("targets/pieces/*"))

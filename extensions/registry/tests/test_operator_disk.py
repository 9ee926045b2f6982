"""A disk that is full at any moment: a clear error, the old state, and no key lost that counts."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jan_registry.publish import state
from jan_registry.publish.ceremony import rotate_keys, sign_waiting
from jan_registry.publish.errors import KeyUnusable
from jan_registry.publish.files import interrupted
from jan_registry.publish.founding import found
from jan_registry.publish.publishing import publish_folder

from jan_core import StorageError

NOW = 1_790_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    found(folder, "Example", url="", signers={}, passphrase=None, now=NOW)
    publish_folder(folder, now=NOW)
    return folder


class Full:
    """From the `step`-th file or folder on that is made, there is no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.left, self.hit = step, False
        for owner, name in ((os, "fsync"), (Path, "mkdir")):
            self._patch(monkeypatch, owner, name)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def limited(*given: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                self.hit = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given, **options)

        monkeypatch.setattr(owner, name, limited)


def served(folder: Path) -> dict[str, bytes]:
    tree = folder / "public"
    return {
        str(path): path.read_bytes() for path in tree.rglob("*.*") if path.is_file() and ".publish" not in path.name
    }


def model(folder: Path) -> None:
    source = '[[files]]\npath = "a.gguf"\n'
    (folder / "models/a.toml").write_text(f'id = "a"\nname = "A"\n{source}')


def test_a_full_disk_leaves_the_old_state_or_the_new_one_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(folder)
    shutil.copytree(folder, tmp_path / "before")
    outcomes = []
    for step in range(100):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before", folder)
        before = served(folder)
        with monkeypatch.context() as patch:
            full = Full(patch, step)
            try:
                publish_folder(folder, now=NOW + 60)
                outcomes.append("published")
            except StorageError as error:
                outcomes.append(error.message)
        if outcomes[-1] != "published" and not interrupted(folder / "public"):
            assert served(folder) == before
        publish_folder(folder, now=NOW + 120)
        content = state.read(folder / "public").content("models")
        assert content
        assert list(content.records) == ["a"]
        if not full.hit:
            break
    refused = [message for message in outcomes if message != "published"]
    assert len(refused) > 15
    assert all(message.endswith("No space left on device") and "Errno" not in message for message in refused)
    assert outcomes[-1] == "published"


@pytest.mark.parametrize("role", ["timestamp", "flags"])
def test_a_full_disk_during_a_rotation_loses_no_key_that_counts(
    folder: Path, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "before")
    options: dict[str, Any] = {"remove": [], "add": [], "threshold": None, "stolen": False, "passphrase": None}
    refused = 0
    for step in range(150):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before", folder)
        with monkeypatch.context() as patch:
            full = Full(patch, step)
            try:
                rotate_keys(folder, role, now=NOW + 60, **options)
            except (StorageError, KeyUnusable):
                refused += 1
        assert not [path for path in (folder / "keys").rglob("*") if path.is_file() and not path.stat().st_size]
        (folder / "flags/registry.phase.toml").write_text('id = "registry.phase"\nvalue = "mixed"\n')
        publish_folder(folder, now=NOW + 120)  # needs the keys of flags, snapshot and timestamp
        rotate_keys(folder, role, now=NOW + 180, **options)
        if not full.hit:
            break
    else:
        pytest.fail("it never came to an end")
    assert refused > 15


def test_what_a_killed_process_left_of_a_key_keeps_nobody_from_signing(folder: Path) -> None:
    (folder / "keys/offline").rename(folder / "away")
    with pytest.raises(Exception, match="Signatures are missing"):
        rotate_keys(folder, "flags", remove=[], add=[], threshold=None, stolen=False, passphrase=None, now=time.time())
    (folder / "away/targets-4.pem").touch()
    signed = sign_waiting(folder / "pending", [folder / "away"], None, show=False)
    assert sum(map(len, signed.signed.values())) == 3

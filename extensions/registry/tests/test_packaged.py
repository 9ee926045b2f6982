"""The list that the program is shipped with: what the catalogue's folder says, and signed as a hub's."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from jan_registry.builtin import builtin_models
from jan_registry.catalogue import PACKAGED
from jan_registry.collections import COLLECTIONS
from jan_registry.collections.check import check
from jan_registry.convert import to_model
from jan_registry.publish.publishing import valid
from jan_registry.signed.bundle import read_bundle, shipped_root, verify_bundle

from .hubmaker import Hub

HERE = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_package_is_what_the_catalogue_s_folder_says(name: str) -> None:
    bundle = read_bundle(PACKAGED, now=time.time())
    assert bundle.records(name) == valid(HERE / "catalogue").collections()[name], "run tools/package_registry.py"


def test_the_package_is_signed_under_its_root() -> None:
    verify_bundle(PACKAGED, shipped_root(PACKAGED))


def test_it_says_what_the_list_in_the_program_says() -> None:
    records = [check("models", record) for record in read_bundle(PACKAGED, now=time.time()).records("models")]
    shipped = {record.id: to_model(record, hub_url="", source="registry") for record in records}
    for model in builtin_models():
        other = shipped.pop(model.id)
        for field in ("name", "description", "publisher", "license", "parameters", "context_length", "tags", "files"):
            assert getattr(other, field) == getattr(model, field), f"{model.id}: {field}"
    assert shipped == {}


def test_no_private_key_lies_beside_it() -> None:
    for path in (*HERE.rglob("*.pem"), *PACKAGED.rglob("*")):
        assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes(), path


def test_a_distributor_ships_a_hub_of_their_own(tmp_path: Path) -> None:
    hub = Hub(tmp_path).models("owner/tiny")
    for name in COLLECTIONS:
        hub.collections.setdefault(name, [])
    hub.publish()
    shipped = tmp_path / "shipped"
    tool = HERE.parents[1] / "tools" / "package_registry.py"
    arguments = [sys.executable, tool, "--tree", hub.tree, "--output", shipped]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert shipped_root(shipped) == hub.root
    assert read_bundle(shipped, now=time.time()).records("models") == hub.collections["models"]

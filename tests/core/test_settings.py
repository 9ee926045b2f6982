"""One settings file, shared by processes, edited by people, read by versions that know other fields."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from jan_core import InvalidParams, StorageError
from jan_core.settings import Settings


class Options(msgspec.Struct, forbid_unknown_fields=True):
    volume: Annotated[int, msgspec.Meta(ge=0, le=11)] = 3
    name: str = "radio"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def test_what_was_written_is_read_by_another_process(file: Path) -> None:
    assert Settings(file).write("radio", Options, {"volume": 7}) == Options(7)
    assert Settings(file).read("radio", Options) == Options(7)
    assert json.loads(file.read_text()) == {"radio": {"volume": 7}}


def test_null_goes_back_to_the_default(file: Path) -> None:
    settings = Settings(file)
    settings.write("radio", Options, {"volume": 7, "name": "küche"})
    assert settings.write("radio", Options, {"volume": None}) == Options(3, "küche")


@pytest.mark.parametrize("changes", [{"volume": 12}, {"volume": "x"}, {"colour": 1}, {"volume": 5, "name": 1}])
def test_a_change_that_does_not_fit_changes_nothing(file: Path, changes: dict[str, object]) -> None:
    settings = Settings(file)
    settings.write("radio", Options, {"volume": 7})
    with pytest.raises(InvalidParams) as caught:
        settings.write("radio", Options, changes)
    assert str(caught.value.data["path"]).startswith("$.values.")
    assert settings.read("radio", Options) == Settings(file).read("radio", Options) == Options(7)


def test_one_field_that_does_not_fit_costs_that_field_and_is_reported(file: Path) -> None:
    file.write_text('{"radio": {"volume": "loud", "name": "old", "gone": true}}')
    settings = Settings(file)
    assert settings.read("radio", Options) == Options(3, "old")
    assert list(settings.problems) == ["radio.volume"]
    assert settings.write("radio", Options, {"volume": 4}) == Options(4, "old")
    assert settings.problems == {}
    assert json.loads(file.read_text())["radio"]["gone"] is True, "another version's field is kept"


def test_two_processes_do_not_undo_each_other_s_changes(file: Path) -> None:
    one, two = Settings(file), Settings(file)
    one.read("radio", Options)
    two.read("radio", Options)
    one.write("radio", Options, {"volume": 9})
    two.write("radio", Options, {"name": "bad"})
    assert Settings(file).read("radio", Options) == Options(9, "bad")


@pytest.mark.parametrize("text", ["{oops", "[]", "\xff"])
def test_a_damaged_file_is_reported_and_never_written_over(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    settings = Settings(file)
    assert settings.read("radio", Options) == Options()
    assert "(file)" in settings.problems
    with pytest.raises(StorageError, match="mend it"):
        settings.write("radio", Options, {"volume": 1})
    assert file.read_bytes() == text.encode("latin-1")
    file.write_text('{"radio": {"volume": 5}}')
    assert settings.write("radio", Options, {"name": "mended"}) == Options(5, "mended")
    assert settings.problems == {}


def test_a_file_that_cannot_be_read_is_left_alone(file: Path) -> None:
    file.mkdir()  # reading it fails for everybody, root included
    settings = Settings(file)
    assert settings.read("radio", Options) == Options()
    assert "cannot be read" in settings.problems["(file)"]
    with pytest.raises(StorageError):
        settings.write("radio", Options, {"volume": 1})
    assert file.is_dir()


def test_a_crash_before_the_replacement_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(file)
    settings.write("radio", Options, {"volume": 7})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        settings.write("radio", Options, {"volume": 8})
    assert Settings(file).read("radio", Options) == Options(7)


class Range(msgspec.Struct):
    least: int = 1
    most: int = 10

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("least is more than most")


def test_values_that_do_not_fit_together_are_refused_and_change_nothing(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "settings.json")
    settings.write("range", Range, {"least": 5})
    with pytest.raises(InvalidParams, match="range: least is more than most"):
        settings.write("range", Range, {"most": 2})
    assert settings.read("range", Range) == Range(5, 10)
    assert Settings(tmp_path / "settings.json").read("range", Range) == Range(5, 10)


def test_stored_values_that_do_not_fit_together_are_reported_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"range": {"least": 7, "most": 3}}')
    settings = Settings(tmp_path / "settings.json")
    assert settings.read("range", Range) == Range()
    assert settings.problems == {"range": "least is more than most"}
    settings.write("range", Range, {"most": None})
    assert settings.read("range", Range) == Range(7, 10)
    assert settings.problems == {}


def test_a_file_nested_without_end_is_as_damaged_as_any(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[" * 100_000)
    settings = Settings(tmp_path / "settings.json")
    assert settings.read("range", Range) == Range()
    assert "defaults are used" in settings.problems["(file)"]

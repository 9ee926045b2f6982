"""`jan schema`: the contract of what is installed, on stdout or in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jan_core.schema import rust, typescript

from .conftest import Jan


def printed(jan: Jan, *arguments: str) -> str:
    done = jan("schema", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("language", "generate"), [("typescript", typescript), ("rust", rust)])
def test_types_are_generated_from_the_document_of_what_is_installed(jan: Jan, language: str, generate: Any) -> None:
    assert printed(jan, language) == generate(json.loads(printed(jan, "openrpc")))


def test_a_file_is_written_and_left_alone_when_nothing_has_changed(jan: Jan, tmp_path: Path) -> None:
    path = tmp_path / "contract.rs"
    assert printed(jan, "rust", "-o", str(path)) == ""
    written = path.stat().st_mtime_ns
    assert printed(jan, "rust", "--output", str(path)) == ""
    assert path.stat().st_mtime_ns == written
    assert path.read_text("utf-8") == printed(jan, "rust")


@pytest.mark.parametrize("place", ["there is no such folder/contract.ts", "."])
def test_a_place_that_cannot_be_written_is_said_in_one_line(jan: Jan, tmp_path: Path, place: str) -> None:
    done = jan("schema", "typescript", "-o", str(tmp_path / place))
    assert done.returncode in (1, 2)
    assert str(tmp_path) in done.stderr.strip().splitlines()[-1]

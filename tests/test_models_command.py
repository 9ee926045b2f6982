"""`jan models` as a person types it: what is said of options, and of files that are no models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL

from .conftest import Jan


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model's file, with spaces and signs of several scripts in its name."""
    return Path(shutil.copy(EMBEDDED_MODEL, tmp_path / "mein Modell größe 模型.gguf"))


def test_a_model_of_any_name_is_taken_in_told_how_to_load_and_deleted(jan: Jan, file: Path) -> None:
    done = jan("models", "import", str(file), "--id", "mine")
    assert (done.returncode, done.stderr) == (0, "mine is installed; talk with it: jan chat -m mine\n")
    assert jan("chat", "-m", "mine", "hello").stdout.strip()
    done = jan("models", "configure", "mine", "--n-ctx", "512", "--kv-type", "q8_0")
    assert done.stderr == "mine is loaded with n_ctx 512, kv_type q8_0\n"
    assert json.loads(jan("models", "show", "mine", "--json").stdout)["model"]["options"]["n_ctx"] == 512
    assert jan("models", "configure", "mine").stderr == "mine is loaded as is chosen for it\n"
    assert jan("models", "delete", "mine").stderr == "mine is deleted\n"
    assert file.is_file()
    assert jan("models", "delete", "mine").returncode == 1


def test_a_context_beyond_what_the_model_was_made_for_is_told_from_one_that_does_not_fit(jan: Jan) -> None:
    said = jan("models", "estimate", "jan-tiny", "--n-ctx", "4096").stderr
    assert said.startswith("jan-tiny fits with a context of 4096 tokens; it was made for 1024\n")
    said = jan("models", "estimate", "jan-tiny", "--n-ctx", "512").stderr
    assert said.startswith("jan-tiny fits with a context of 512 tokens; the longest that fits has 1024\n")


@pytest.mark.parametrize("option", ["--threads=99999", "--parallel=0", "--n-ctx=1", "--gpu-layers=-2"])
def test_options_without_meaning_are_wrong_usage(jan: Jan, option: str) -> None:
    done = jan("models", "estimate", "jan-tiny", option)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr


@pytest.mark.parametrize(("size", "words"), [(0, "not a GGUF file"), (100, "truncated"), (2_000_000, "truncated")])
def test_half_a_file_is_one_line(jan: Jan, file: Path, size: int, words: str) -> None:
    with file.open("r+b") as cut:
        cut.truncate(size)
    done = jan("models", "import", str(file))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert words in done.stderr

"""`jan chat --image` as a person types it: the embedded model with a small projector of random weights beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL

from extensions.llamacpp.tests.image_models import png, write_projector

from .conftest import Jan


@pytest.fixture
def red(tmp_path: Path) -> str:
    path = tmp_path / "a red one.png"
    path.write_bytes(png())
    return str(path)


def test_a_model_that_sees_is_asked_about_pictures(jan: Jan, tmp_path: Path, red: str) -> None:
    model = tmp_path / "seeing.gguf"
    shutil.copy(EMBEDDED_MODEL, model)
    write_projector(tmp_path / "mmproj-seeing.gguf", n_embd=256)
    assert jan("models", "import", str(model)).returncode == 0
    flags = ["-m", "seeing", "--temperature", "0", "--max-tokens", "8", "--json"]
    one, two = [
        json.loads(jan("chat", "What is it?", "--image", red, *flags, *more).stdout) for more in ([], ["--image", red])
    ]
    assert one["model"] == "seeing"
    assert two["usage"]["prompt_tokens"] - one["usage"]["prompt_tokens"] >= 16  # a picture is 4 x 4 tokens
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(png(data=b"rubbish"))
    done = jan("chat", "What is it?", "--image", red, "--image", str(damaged), *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert "damaged.png: " in done.stderr.splitlines()[0]


def test_a_model_without_a_projector_says_what_to_do(jan: Jan, red: str) -> None:
    done = jan("chat", "What is it?", "--image", red)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "jan: this model takes no pictures: it has no projector",
        "     name one that does, or take one in: jan models import FILE --projector FILE",
    ]

"""`jan embed` as a person types it, on the model that comes with the package."""

from __future__ import annotations

import json
import math

import pytest

from .conftest import Jan


def test_texts_become_vectors_of_length_1_in_their_order(jan: Jan) -> None:
    done = jan("embed", "What is an extension?", "Völlig anderes", "What is an extension?")
    assert (done.returncode, done.stderr) == (0, "")
    first, other, again = [json.loads(line) for line in done.stdout.splitlines()]
    assert math.hypot(*first) == pytest.approx(1, abs=1e-5)
    assert len(first) == len(other) > 1
    assert first == pytest.approx(again, abs=1e-3)  # two texts of one decode may differ in the last digits
    assert math.dist(first, other) > 0.1


def test_lines_of_a_pipe_become_one_object_as_openai_has_it(jan: Jan) -> None:
    done = jan("embed", "--json", "--dimensions", "8", stdin="one\nzwei\n")
    answer = json.loads(done.stdout)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert all(math.hypot(*item["embedding"]) == pytest.approx(1, abs=1e-5) for item in answer["data"])
    assert [len(item["embedding"]) for item in answer["data"]] == [8, 8]
    assert answer["model"] == "jan-tiny"
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


def test_what_the_model_cannot_do_is_one_line(jan: Jan) -> None:
    done = jan("embed", "hello", "--dimensions", "100000")
    assert (done.returncode, done.stdout) == (1, "")
    assert "dimensions, not 100000" in done.stderr.splitlines()[0]

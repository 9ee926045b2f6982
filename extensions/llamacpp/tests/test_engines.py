"""Which versions come first, and what an installation's output means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.engines.builds import choose, version_key
from jan_llamacpp.engines.diagnosis import compiler_advice, diagnose
from jan_llamacpp.engines.progress import Progress, Tracker

from jan_core.types import EngineBuild


def test_an_installed_build_is_chosen_before_a_newer_one_that_is_not() -> None:
    builds = [EngineBuild("cpu-9", "cpu", "9"), EngineBuild("cpu-10", "cpu", "10", installed=True)]
    builds.append(EngineBuild("cpu-11", "cpu", "11"))
    choice = choose(builds)
    assert choice is not None
    assert choice.build == "cpu-10"


def test_versions_are_compared_as_numbers() -> None:
    assert version_key("0.3.9") < version_key("0.3.36") < version_key("0.4") < version_key("0.10.0")
    assert version_key("b9999") < version_key("b10000")


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
)
def test_the_order_of_versions_is_that_of_their_numbers(one: list[int], other: list[int]) -> None:
    left, right = (version_key(".".join(map(str, numbers))) for numbers in (one, other))
    assert (left < right) == (one < other)
    assert (left == right) == (one == other)


# What uv, CMake and the compilers really printed, shortened.
NO_COMPILER = """\
  × Failed to build `llama-cpp-python==0.3.36`
      -- The C compiler identification is unknown
      CMake Error at CMakeLists.txt:3 (project):
        No CMAKE_C_COMPILER could be found.
        Tell CMake where to find the compiler by setting either the environment
"""
NO_NETWORK = """\
error: Request failed after 3 retries
  Caused by: Failed to fetch: `http://127.0.0.1:9/simple/numpy/`
  Caused by: error sending request for url (http://127.0.0.1:9/simple/numpy/)
  Caused by: tcp connect error: Connection refused (os error 111)
"""
FULL = """\
      [12/193] /usr/bin/g++ -O3 -o ops.cpp.o -c ops.cpp
      fatal error: error writing to ccZ7Cj5b.s: No space left on device
      ninja: build stopped: subcommand failed.
"""
DEFECT = """\
      FAILED: vendor/llama.cpp/src/llama.cpp.o
      llama.cpp:12:3: error: 'frob' was not declared in this scope
"""


@pytest.mark.parametrize(
    ("output", "reason", "words"),
    [
        (NO_COMPILER, "compiler_missing", compiler_advice()),
        (NO_NETWORK, "network", "could not be fetched"),
        (FULL, "disk_full", "the disk is full"),
        (DEFECT, "build_failed", "error: 'frob' was not declared"),
        ("", "build_failed", "see the log"),
    ],
)
def test_a_failure_is_explained(output: str, reason: str, words: str) -> None:
    found, message = diagnose(output)
    assert found == reason
    assert words in message


def test_every_system_gets_advice_about_a_compiler() -> None:
    assert "xcode-select" in compiler_advice("darwin")
    assert "Visual Studio" in compiler_advice("win32")
    assert "build-essential" in compiler_advice("linux")


def test_progress_is_read_from_what_uv_and_ninja_print() -> None:
    seen: list[Progress] = []
    tracker = Tracker(seen.append)
    for line in [
        "DEBUG Solving with installed Python version: 3.11.7",
        "DEBUG Downloading source distribution: llama-cpp-python==0.3.36",
        "   Building llama-cpp-python==0.3.36",
        "DEBUG Solving with installed Python version: 3.11.7",
        "DEBUG [37/193] /usr/bin/g++ -DGGML_BUILD",
        "DEBUG [37/193] /usr/bin/g++ -DGGML_BUILD",
        "DEBUG [200/193] nonsense",
        "Installed 6 packages in 8ms",
    ]:
        tracker.line(line)
    assert [each.phase for each in seen] == ["resolving", "downloading", "building", "building", "installing"]
    assert (seen[3].done, seen[3].total, seen[3].message) == (37, 193, "compiling 37 of 193")

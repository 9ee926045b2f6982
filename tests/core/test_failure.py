"""Where a failure is said to be: in code that its reader can mend."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from jan_core.border import Escaped, border
from jan_core.extension import Failure
from jan_core.loader import Source, StageError, folder_source, read, stage

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def failure(project: Project) -> Failure:
    """What is found wrong with its code when it is reloaded."""
    source = folder_source(project.folder)
    with pytest.raises(StageError) as caught:
        _reload(source)
    return caught.value.failure


def _reload(source: Source) -> None:
    manifest, _, snapshot = read(source, "1.0", None)
    stage(source, manifest, 2, snapshot)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("@hookimpl\ndef jan_evnt(self, event): ...", "did you mean jan_event"),
        ("@hookimpl\ndef jan_settings(self):\n    return int", "it must name a msgspec.Struct"),
        ("@hookimpl\ndef jan_methods(self): ...", "jan_methods returned None; return jan_core.methods_of(self)"),
    ],
)
def test_what_the_host_finds_names_no_line_of_the_host(project: Project, more: str, says: str) -> None:
    project.plugin(more)
    found = failure(project)
    assert says in found.message
    assert (found.file, found.line) == ("", 0)


def test_a_null_byte_is_refused_with_the_file_it_is_in(project: Project) -> None:
    project.write("words.py", "WORD = 'a\0b'\n")
    found = failure(project)
    assert (found.stage, found.file) == ("compile", str(project.code / "words.py"))


def test_what_the_standard_library_raises_is_placed_where_it_was_called() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    found = Failure.of("call", caught.value)
    assert (found.file, found.line) == (__file__, sys._getframe().f_code.co_firstlineno + 2)


def test_what_was_contained_is_placed_where_it_was_raised() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(Exception, match=r"sys.exit\(3\)") as caught, border("sample.leave"):
        leave()
    found = Failure.of("call", caught.value.with_traceback(None))  # as where the host alone is between
    assert (found.file, found.line) == (__file__, leave.__code__.co_firstlineno + 1)


@pytest.mark.parametrize("passes", [KeyboardInterrupt, GeneratorExit, ValueError])
def test_what_is_no_exception_is_one_outside_and_what_must_pass_passes(passes: type[BaseException]) -> None:
    class Panic(BaseException):
        """As extension modules written in Rust raise it."""

    with pytest.raises(Escaped, match=r"a hook raised Panic: at src/lib\.rs") as caught, border("a hook"):
        raise Panic("at src/lib.rs")
    assert isinstance(caught.value.__cause__, Panic)
    with pytest.raises(passes), border("a hook"):
        raise passes

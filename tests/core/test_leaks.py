"""What is not a leak: caches of the standard library that remember a class are emptied before anybody is blamed."""

from __future__ import annotations

import typing
import weakref

from jan_core.leaks import collect


def test_an_annotation_that_typing_remembers_holds_nothing() -> None:
    class Mine:
        pass

    remembered = weakref.ref(Mine)
    typing.Optional[typing.Annotated[list[Mine], "many"]]  # noqa: UP045
    del Mine
    collect()
    assert remembered() is None

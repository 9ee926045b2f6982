"""Starts processes of one generation, and learns what is in them. Blocking: for worker threads."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import ErrorObject
from ..extension import Failure
from ..loader import PackageSource, StageError
from ..manifest import Manifest
from ..package import Snapshot
from .process import Child, ChildFailed
from .shapes import Description, Hello, pack

__all__ = ["Starter"]

IMPORT_LIMIT = 30.0
"""Seconds for the start of an interpreter and the import of the extension; whoever waits may be done earlier."""


_FRAME = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)


class _Answer(msgspec.Struct):
    result: Description | None = None
    error: ErrorObject | None = None


class Starter:
    """One generation's code and manifest; `start` makes a process of it, each time the same.

    `snapshot` is the code where it must not be read anew (`loader.PackageSource.load`).
    """

    def __init__(self, source: PackageSource, manifest: Manifest, number: int, snapshot: Snapshot | None) -> None:
        self._hello = Hello(
            id=source.id,
            number=number,
            # In there it is an extension like any other.
            manifest=msgspec.structs.replace(manifest, isolation="none"),
            source=source.recipe,
            level=logging.getLogger().getEffectiveLevel(),
            snapshot=pack(snapshot) if snapshot is not None else b"",
        )
        self._source = source
        self.description: Description | None = None
        """What the first process said it is."""

    def place(self, words: str) -> tuple[str, int]:
        """Where in the extension's code a process was, by the stacks it told (`Child.last_words`); ("", 0): nowhere.

        The thread that was running is the one that counts; its innermost frame comes first.
        """
        root = f"{self._source.root}{os.sep}"
        stack = words.partition("\nCurrent thread ")[2].partition("\n\n")[0]
        for found in _FRAME.finditer(stack):
            if found[1].startswith(root):
                return found[1], int(found[2])
        return "", 0

    def start(self, born: Callable[[Child], Any] = lambda child: None) -> Child:
        """Start a process and have it import the extension; `born` is handed the process before that.

        Raises StageError with the failure of the extension, or when it is not what it was the first time.
        """
        try:
            child = Child(self._hello.id)
            born(child)
        except (ChildFailed, OSError) as error:
            raise StageError(Failure.of("process", error)) from error
        try:
            answer = msgspec.json.decode(child.begin(self._hello, IMPORT_LIMIT), type=_Answer)
            if answer.error is not None:
                raise StageError(_failure(answer.error))
            if self.description is None:
                self.description = answer.result
            elif answer.result is None or not _same(answer.result, self.description):
                text = "its code has changed on the disk and is another extension now; reload it"
                raise StageError(Failure("process", "Changed", text))
        except BaseException as error:
            child.close()
            if isinstance(error, ChildFailed | msgspec.MsgspecError | UnicodeDecodeError):
                raise StageError(Failure.of("process", error)) from error
            raise
        return child


def _failure(error: ErrorObject) -> Failure:
    found = (error.data or {}).get("failure")
    return msgspec.convert(found, Failure) if found else Failure("process", "Refused", error.message)


def _same(one: Description, other: Description) -> bool:
    """Whether the host may ask the one as it asks the other. Their defaults may differ: sets have no order."""
    return (one.hooks, one.methods) == (other.hooks, other.methods)

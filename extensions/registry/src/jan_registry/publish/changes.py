"""Edits of the operator's folder: comments and layout stay, and nothing is written that would not be read again.

Several files may change together. They are checked as a whole before the first is written, each replaced in one step.
What is wrong in the folder already stays wrong and keeps nobody from mending something else; an edit must only not add
to it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jan_core import StorageError

from ..collections import Experiment, Record
from ..collections.check import check
from .answers import Problem
from .consistency import review
from .errors import TreeUnknown, WorkspaceInvalid, WorkspaceUnknown
from .files import exclusive, recover, write
from .workspace import FOLDERS, Workspace, is_workspace, read_workspace, text_in

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

__all__ = ["Changes", "opened", "published_experiments", "published_ids", "reviewed", "to_toml"]


def opened(folder: Path) -> Workspace:
    """The folder, read. Raises WorkspaceUnknown."""
    if not is_workspace(folder):
        message = f"there is no registry.toml in {folder}; make one with: jan registry init"
        raise WorkspaceUnknown(message, folder=str(folder))
    return read_workspace(folder)


def reviewed(folder: Path, *, mend: bool = False) -> Workspace:
    """The folder, read and reviewed. `mend`: finish first what was interrupted while it was published.

    Raises WorkspaceUnknown, TreeDamaged; when mending PublishBusy and StorageError.
    """
    held = opened(folder)
    if mend and held.tree.is_dir():
        with exclusive(held.tree):
            recover(held.tree)
    review(held, published_experiments(held.tree))
    return held


def published_experiments(tree: Path) -> dict[str, Experiment]:
    """Those that clients have been told of. Raises TreeDamaged."""
    from .state import read

    try:
        content = read(tree).content("flags")
    except TreeUnknown:
        return {}
    found = {}
    for id, data in content.records.items() if content else ():
        with contextlib.suppress(ValueError):  # a newer version of this program may have published it
            record = check("flags", data)
            if isinstance(record, Experiment):
                found[id] = record
    return found


def published_ids(tree: Path, collection: str) -> set[str]:
    """The ids that clients have been told of. Raises TreeDamaged."""
    from .state import read

    try:
        content = read(tree).content(collection)
    except TreeUnknown:
        return set()
    return set(content.records) if content else set()


class Changes:
    """What is to become of a folder's files. Raises WorkspaceUnknown."""

    def __init__(self, folder: Path) -> None:
        self.held = reviewed(folder)
        self._texts: dict[str, str | None] = {}

    def file_of(self, folder: str, id: str) -> str:
        """The file that says the record, or one that it can be written to."""
        entry = self.held.entries[FOLDERS[folder]].get(id)
        if entry and entry.file.startswith(f"{folder}/"):
            return entry.file
        stem = re.sub(r"[^a-z0-9._+-]+", "--", id)
        stem = f"_{stem}" if re.match(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", stem) else stem
        file, number = f"{folder}/{stem}.toml", 1
        while file in self._texts or (self.held.folder / file).exists():
            number += 1
            file = f"{folder}/{stem}-{number}.toml"
        return file

    def document(self, file: str) -> TOMLDocument:
        """A file as it will be, to be changed and given to `put`; an empty one when there is none. Raises
        WorkspaceInvalid."""
        import tomlkit
        from tomlkit.exceptions import ParseError

        text = self._texts.get(file)
        if text is None and file not in self._texts:
            try:
                text = text_in(self.held.folder, file)
            except FileNotFoundError:
                text = ""
            except (OSError, UnicodeDecodeError) as error:
                raise _invalid([Problem(file, 0, "", f"cannot be read: {_why(error)}")]) from error
        try:
            return tomlkit.parse(text or "")
        except ParseError as error:
            raise _invalid([Problem(file, error.line, "", f"is not TOML: {error}")]) from error

    def put(self, file: str, document: TOMLDocument) -> None:
        import tomlkit

        self._texts[file] = tomlkit.dumps(document)

    def remove(self, file: str) -> None:
        self._texts[file] = None

    def save(self, *, write_it: bool = True) -> list[str]:
        """The files that change. Raises WorkspaceInvalid when something would be wrong that was not, StorageError.

        `write_it` False: only find out.
        """
        folder = self.held.folder
        after = read_workspace(folder, self._texts, self.held)
        review(after, published_experiments(after.tree))
        known = {(problem.file, problem.field, problem.reason) for problem in self.held.problems}
        new = [problem for problem in after.problems if (problem.file, problem.field, problem.reason) not in known]
        if new:
            raise _invalid(new)
        changed = [file for file, text in self._texts.items() if text != _text(folder, file)]
        for file in changed if write_it else ():
            text = self._texts[file]
            try:
                if text is None:
                    (folder / file).unlink(missing_ok=True)
                else:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    write(folder / file, text.encode())
            except OSError as error:
                raise StorageError(f"{folder / file}: {error.strerror or error}") from error
        return changed


def to_toml(record: msgspec.Struct) -> dict[str, Any]:
    """A record as the folder writes it: without its kind, a variant's files by name."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    plain.pop("kind", None)
    if isinstance(record, Record):
        for variant in plain.get("variants", ()):
            variant["files"] = [record.files[place].path for place in variant["files"]]
        # Simple fields first: what follows a table's heading belongs to the table.
        plain = dict(sorted(plain.items(), key=lambda item: isinstance(item[1], dict) or item[0] in _TABLES))
    return plain


_TABLES = ("files", "variants")


def _invalid(problems: list[Problem]) -> WorkspaceInvalid:
    listed = "; ".join(map(str, problems[:3])) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    return WorkspaceInvalid(f"nothing was changed: {listed}", problems=msgspec.to_builtins(problems))


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"


def _text(folder: Path, file: str) -> str | None:
    try:
        return text_in(folder, file)
    except (OSError, UnicodeDecodeError):
        return None

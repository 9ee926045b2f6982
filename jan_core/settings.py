"""Settings: one JSON file, one typed section for each extension.

Values are checked against the Struct an extension names in `jan_settings`. The file is replaced atomically; a field
that no longer fits is kept in the file and reported, and its default is used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .border import text_of
from .errors import InvalidParams, StorageError

__all__ = ["Settings"]

S = TypeVar("S", bound=msgspec.Struct)
log = logging.getLogger(__name__)

FILE = "(file)"
"""The key in `problems` for the file as a whole."""

Sections = dict[str, dict[str, Any]]


class Settings:
    """The settings file of one data folder. Read on first use, and again before each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections: Sections | None = None
        self.version = 0
        """Goes up with each change: what was read before it may be another now."""
        self.problems: dict[str, str] = {}
        """What did not fit when it was last read, by `section.field` (by `section` what does not fit together); the
        defaults are used in its place."""

    def read(self, section: str, kind: type[S]) -> S:
        """The values of a section: stored ones where they fit, defaults elsewhere."""
        if self._sections is None:
            self._sections = self._load()
        fitting, problems = _fit(kind, self._sections.get(section, {}))
        for key in [key for key in self.problems if key == section or key.startswith(f"{section}.")]:
            del self.problems[key]
        self.problems |= {f"{section}.{name}": problem for name, problem in problems.items()}
        try:
            return kind(**fitting)
        except Exception as error:  # its __post_init__: each value fits, but not all of them together
            self.problems[section] = text_of(error)
            return kind()

    def write(self, section: str, kind: type[S], changes: dict[str, Any]) -> S:
        """Change some fields of a section and store it; a null goes back to the default. Returns the new values.

        Raises InvalidParams, and changes nothing, when a name is unknown or a value does not fit; StorageError when the
        file cannot be read or written.
        """
        fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
        for name, value in changes.items():
            if name not in fields:
                known = ", ".join(sorted(fields)) or "none"
                raise InvalidParams(f"no setting {section}.{name}; there are: {known}", path=f"$.values.{name}")
            try:
                if value is not None:
                    msgspec.convert(value, fields[name].type)
            except msgspec.ValidationError as error:
                raise InvalidParams(f"{section}.{name}: {error}", path=f"$.values.{name}") from error
        try:
            with self._locked():
                sections = self._load(strict=True)  # another process may have changed it meanwhile
                merged = {**sections.get(section, {}), **changes}
                sections[section] = {name: value for name, value in merged.items() if value is not None}
                try:
                    kind(**_fit(kind, sections[section])[0])
                except Exception as error:  # as above
                    raise InvalidParams(f"{section}: {text_of(error)}", path="$.values") from error
                self._store(sections)
        except OSError as error:
            raise StorageError(f"cannot change {self._path}: {error.strerror}") from error
        self._sections = sections
        self.version += 1
        return self.read(section, kind)

    def _load(self, *, strict: bool = False) -> Sections:
        """The file's sections; with `strict`, StorageError when it cannot be read or is damaged.

        A damaged file is neither changed nor written over: what a person chose is in it, and they can mend it.
        """
        try:
            document = json.loads(self._path.read_bytes())
            if not isinstance(document, dict):
                raise ValueError("not a JSON object")
        except FileNotFoundError:
            self.problems.pop(FILE, None)
            return {}
        except (OSError, ValueError, RecursionError) as error:
            what = f"{self._path} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
            if strict:
                raise StorageError(f"{what}; mend it, or move it away") from None
            self.problems[FILE] = f"{what}; defaults are used"
            log.warning("settings: %s", self.problems[FILE])
            return {}
        self.problems.pop(FILE, None)
        return {name: section for name, section in document.items() if isinstance(section, dict)}

    def _store(self, sections: Sections) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(json.dumps(sections, indent=2, ensure_ascii=False).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes on the same folder from changing the file meanwhile (not on Windows yet)."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("wb") as lock:
            if os.name == "posix":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _fit(kind: type[msgspec.Struct], values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those of stored values that fit the fields of `kind`, by the fields' names, and what is wrong with the rest."""
    fitting, problems = {}, {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in values:
            try:
                fitting[field.name] = msgspec.convert(values[field.encode_name], field.type)
            except msgspec.ValidationError as error:
                problems[field.encode_name] = str(error)
    return fitting, problems

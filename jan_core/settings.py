"""Settings: one JSON file, one typed section for each extension.

Values are checked against the Struct an extension names in `jan_settings`. The file is replaced atomically; a section
or field that no longer fits is kept in the file and reported, and its default is used.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .errors import InvalidParams, StorageError

__all__ = ["Settings"]

S = TypeVar("S", bound=msgspec.Struct)


class Settings:
    """The settings file of one data folder. Read on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections: dict[str, dict[str, Any]] | None = None
        self.problems: dict[str, str] = {}
        """What did not fit when it was read, by section; the defaults are used in its place."""

    def read(self, section: str, kind: type[S]) -> S:
        """The values of a section: stored ones where there are some that fit, defaults elsewhere."""
        stored = self._load().get(section, {})
        try:
            values = msgspec.convert(stored, kind)
            self.problems.pop(section, None)
        except msgspec.ValidationError as error:
            self.problems[section] = str(error)
            values = kind()
        return values

    def write(self, section: str, kind: type[S], changes: dict[str, Any]) -> S:
        """Change some fields of a section and store it; a null goes back to the default. Returns the new values.

        Raises InvalidParams, and changes nothing, when a name is unknown or a value does not fit; StorageError when the
        file cannot be written.
        """
        names = {f.encode_name for f in msgspec.structs.fields(kind)}
        unknown = sorted(set(changes) - names)
        if unknown:
            raise InvalidParams(
                f"no setting {section}.{unknown[0]}; there are: {', '.join(sorted(names)) or 'none'}",
                path=f"$.{unknown[0]}",
            )
        sections = dict(self._load())
        merged = {n: v for n, v in {**sections.get(section, {}), **changes}.items() if v is not None}
        try:
            values = msgspec.convert({n: v for n, v in merged.items() if n in names}, kind)
        except msgspec.ValidationError as error:
            raise InvalidParams(f"{section}: {error}") from error
        sections[section] = merged
        self._store(sections)
        self._sections = sections
        self.problems.pop(section, None)
        return values

    def _load(self) -> dict[str, dict[str, Any]]:
        if self._sections is None:
            try:
                document = json.loads(self._path.read_bytes())
                if not isinstance(document, dict):
                    raise ValueError("not a JSON object")
                self._sections = {k: v for k, v in document.items() if isinstance(v, dict)}
            except FileNotFoundError:
                self._sections = {}
            except (OSError, ValueError) as error:
                # Start with defaults, but keep the damaged file for the person: the next write would replace it.
                self.problems["(file)"] = f"{self._path}: {error}; defaults are used, the file was kept as .damaged"
                self._sections = {}
                with contextlib.suppress(OSError):
                    self._path.replace(self._path.with_suffix(".damaged"))
        return self._sections

    def _store(self, sections: dict[str, dict[str, Any]]) -> None:
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(json.dumps(sections, indent=2, ensure_ascii=False).encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from error

"""The operator's folder: readable TOML in git, read whole, with everything that is wrong with it at once.

    registry.toml        what the hub is called, where its keys and its published tree lie
    models/*.toml        one model a file
    featured/*.toml      one list a file; who it is for
    flags/*.toml         one flag a file
    experiments/*.toml   one experiment a file
    revocations/*.toml   one revocation a file
    stats.toml           downloads and likes by model; may be missing
    pieces/*.bin         piece lists that models name

The fields are those of `collections`, but for one convenience: a variant may name its files instead of counting them,
and a date may be written as one. TOML only: nothing that users have brings a YAML parser. Nothing here writes.
"""

from __future__ import annotations

import datetime
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..collections import COLLECTIONS, Experiment, Flag, canonical
from ..collections.check import check
from .answers import Problem
from .places import find, line_of, lines_of
from .reading import contents

__all__ = [
    "FOLDERS",
    "STATS",
    "Config",
    "Entry",
    "Workspace",
    "collection_of",
    "is_workspace",
    "read_workspace",
    "text_in",
]

CONFIG = "registry.toml"
STATS = "stats.toml"
FOLDERS = {
    "models": "models",
    "featured": "featured",
    "flags": "flags",
    "experiments": "flags",
    "revocations": "revocations",
}
"""Folder -> the collection that what lies in it belongs to."""
_MAX_FILE, _MAX_STATS = 1 << 20, 64 << 20


class Config(Struct, forbid_unknown_fields=True, kw_only=True):
    """`registry.toml`. `url`: where clients find the hub, for display only. Paths are relative to the folder.

    `tree` is what gets published; `pending` is where metadata wait for signatures; `keys` are folders of private keys,
    of which those that are there are used. Who may sign what, and how many have to, is in the hub's signed root.
    """

    name: str
    url: str = ""
    tree: str = "public"
    pending: str = "pending"
    keys: list[str] = msgspec.field(default_factory=lambda: ["keys"])


@dataclass(frozen=True)
class Entry:
    """A record and the file that says it. `file` is relative to the folder, with `/`."""

    file: str
    text: str
    value: Any

    @property
    def data(self) -> bytes:
        return canonical(msgspec.to_builtins(self.value))

    def problem(self, field: str, reason: str) -> Problem:
        return Problem(self.file, find(self._lines, field), field, reason)

    @cached_property
    def _lines(self) -> dict[str, int]:
        return lines_of(self.text)


@dataclass
class Workspace:
    """What a folder says. With `problems` it must not be published; `warnings` are worth a look."""

    folder: Path
    config: Config = field(default_factory=lambda: Config(name=""))
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {name: {} for name in COLLECTIONS})
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.folder / self.config.tree

    @property
    def pending(self) -> Path:
        return self.folder / self.config.pending

    @property
    def key_folders(self) -> list[Path]:
        return [self.folder / name for name in self.config.keys]

    def values(self, collection: str) -> Iterator[Any]:
        """The records of a collection."""
        return (entry.value for entry in self.entries[collection].values())

    def collections(self) -> dict[str, list[bytes]]:
        """What is to be published: canonical records in the order of their ids, by collection."""
        return {name: [held[id].data for id in sorted(held)] for name, held in self.entries.items()}


def is_workspace(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def collection_of(file: str) -> str:
    """The collection that a file of the folder belongs to; "" when none."""
    if file == STATS:
        return "stats"
    folder, _, name = file.partition("/")
    return FOLDERS.get(folder, "") if name.endswith(".toml") else ""


def read_workspace(
    folder: Path, instead: Mapping[str, str | None] | None = None, known: Workspace | None = None
) -> Workspace:
    """Read a folder. `instead`: texts that count in place of files' contents (None: no such file), to see what they
    would do. `known`: an earlier reading, whose records are taken over where the text is the same.

    Does not raise for what a person wrote: that is in `problems`. Whether records fit one another is
    `consistency.review`'s business.
    """
    held = Workspace(folder)
    before = {entry.file: entry for one in (known.entries.values() if known else ()) for entry in one.values()}
    texts = dict(instead or {})
    for file in (CONFIG, STATS, *_listed(held)):
        if file not in texts and (file != STATS or os.path.lexists(folder / STATS)):
            texts[file] = _read(held, file)
    for file, text in sorted(texts.items()):
        same = before.get(file)
        if same and same.text == text and file != STATS:
            _keep(held, collection_of(file), same)
            continue
        data = None if text is None else _parsed(held, file, text)
        if text is None or data is None:
            continue
        if file == CONFIG:
            held.config = _config(held, text, data)
        elif file == STATS:
            for id, numbers in data.items():
                entry = numbers if isinstance(numbers, dict) else {"value": numbers}
                _take(held, file, text, "stats", {"id": id, **entry}, f"{id}.")
        else:
            _take(held, file, text, collection_of(file), data)
    return held


def _listed(held: Workspace) -> Iterator[str]:
    for name in FOLDERS:
        folder = held.folder / name
        if not folder.is_dir() and os.path.lexists(folder):
            held.problems.append(Problem(name, 0, "", "is not a folder"))
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            if path.suffix in (".yaml", ".yml", ".json"):
                held.problems.append(Problem(f"{name}/{path.name}", 0, "", "is not read: records are written in TOML"))
            elif path.suffix == ".toml":
                yield f"{name}/{path.name}"


def text_in(folder: Path, file: str) -> str:
    """A file's text, with line ends as Python has them. Raises OSError, UnicodeDecodeError."""
    content = contents(folder / file, _MAX_STATS if file == STATS else _MAX_FILE)
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _read(held: Workspace, file: str) -> str | None:
    try:
        return text_in(held.folder, file)
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    held.problems.append(Problem(file, 0, "", reason))
    return None


def _parsed(held: Workspace, file: str, text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason, _, place = str(error).partition(" (at line ")
        line = place.partition(",")[0]
        held.problems.append(Problem(file, int(line) if line.isdigit() else 0, "", f"is not TOML: {reason}"))
        return None


def _config(held: Workspace, text: str, data: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        where = where.strip(".`")
        held.problems.append(Problem(CONFIG, line_of(text, where), where, reason))
        return held.config


def _take(held: Workspace, file: str, text: str, collection: str, data: dict[str, Any], prefix: str = "") -> None:
    """Check one record, and keep it if it may be kept."""
    if collection == "flags":
        kind = "experiment" if file.startswith("experiments/") else "flag"
        if data.setdefault("kind", kind) != kind:
            held.problems.append(Problem(file, line_of(text, "kind"), "kind", f"must be {kind} in this folder"))
            return
    try:
        plain = _plain(data, "")
        if collection == "models":
            _number_files(plain)
        value = check(collection, json.dumps(plain, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        _refuse_unknown(plain, value, "")
    except (ValueError, RecursionError) as error:
        where, _, reason = str(error).partition(": ")
        where = "" if where == "record" else prefix + where
        held.problems.append(Problem(file, line_of(text, where), where, reason or str(error)))
        return
    _keep(held, collection, Entry(file, text, value))


def _keep(held: Workspace, collection: str, entry: Entry) -> None:
    first = held.entries[collection].setdefault(entry.value.id, entry)
    if first is not entry:
        held.problems.append(entry.problem("id", f"{first.file} has the same id, {entry.value.id}"))


def _plain(value: Any, where: str) -> Any:
    """TOML's values as JSON's: dates become text; times are refused, of which no record has one."""
    if isinstance(value, dict):
        return {key: _plain(item, f"{where}.{key}".strip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, datetime.datetime | datetime.time | float):
        raise ValueError(f"{where}: must be a whole number, text or a date")
    return value


def _number_files(model: dict[str, Any]) -> None:
    """A variant's files, where it names them, as places in the list of files."""
    files, variants = model.get("files"), model.get("variants")
    if not isinstance(files, list) or not isinstance(variants, list):
        return
    places = {str(file.get("path")): place for place, file in enumerate(files) if isinstance(file, dict)}
    for number, variant in enumerate(variants):
        named = variant.get("files") if isinstance(variant, dict) else None
        for place, name in enumerate(named if isinstance(named, list) else ()):
            if isinstance(name, str):
                if name not in places:
                    raise ValueError(f"variants[{number}].files: there is no file {name!r}")
                variant["files"][place] = places[name]


def _refuse_unknown(data: Any, value: Any, where: str) -> None:
    """A field that no record has: clients pass it over, but here it is a slip of the pen."""
    if isinstance(value, list):
        for index, (one, other) in enumerate(zip(data, value, strict=True)):
            _refuse_unknown(one, other, f"{where}[{index}]")
    elif isinstance(value, Struct):
        known = {*value.__struct_fields__, *(["kind"] if isinstance(value, Flag | Experiment) else [])}
        for key, item in data.items():
            inner = f"{where}.{key}".strip(".")
            if key not in known:
                raise ValueError(f"{inner}: there is no such field")
            _refuse_unknown(item, getattr(value, key, None), inner)

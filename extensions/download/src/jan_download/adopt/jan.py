"""The data folder of the Jan app.

From github.com/janhq/jan: `src-tauri/src/core/app/commands.rs` (`resolve_jan_data_folder`: `JAN_DATA_FOLDER`, else
`data_folder` of `settings.json` in the app's folder, else `data` beside it; older versions kept these elsewhere),
`models.rs` (`gguf_scan_paths`), and its llamacpp extension: `<data>/llamacpp/models/<id>/model.yml` names the files and
often says their SHA-256. Files are relative to the data folder, or absolute where they were imported without a copy.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from .places import Places
from .reading import small_text

__all__ = ["folders", "named"]

_MODELS = ("llamacpp/models", "mlx/models", "models")
_MOST_FOLDERS = 5000
_FIELD = re.compile(r"^(\w+):[ \t]+(\S.*?)[ \t]*\r?$", re.MULTILINE)
_FILES = (("model_path", "model_sha256"), ("mmproj_path", "mmproj_sha256"))


class _Settings(msgspec.Struct):
    data_folder: str = ""
    gguf_scan_paths: list[str] | None = None


def named(places: Places, sha256: str) -> Iterator[Path]:
    """Files of which a `model.yml` says that they have this hash."""
    for data in _data_folders(places):
        for record in _records(data / "llamacpp" / "models"):
            fields = dict(_FIELD.findall(small_text(record)))
            for path, digest in _FILES:
                if _scalar(fields.get(digest, "")).lower() == sha256 and path in fields:
                    yield data / _scalar(fields[path])  # an absolute path stays itself


def folders(places: Places) -> Iterator[Path]:
    """Folders of models; also those that a person had the app look through."""
    for data in _data_folders(places):
        yield from (data / models for models in _MODELS)
    for settings in _settings(places):
        yield from (Path(path) for path in settings.gguf_scan_paths or [] if Path(path).is_absolute())


def _data_folders(places: Places) -> Iterator[Path]:
    found = [places.variable("JAN_DATA_FOLDER")]
    found += [Path(settings.data_folder) for settings in _settings(places)]
    found += [folder / "Jan" / "data" for folder in (places.data, places.config) if folder]
    found += [places.below_home("jan")]
    yield from dict.fromkeys(folder for folder in found if folder and folder.is_absolute())


def _settings(places: Places) -> Iterator[_Settings]:
    folders = dict.fromkeys(folder for folder in (places.data, places.config) if folder)
    for text in [small_text(folder / app / "settings.json") for folder in folders for app in ("Jan", "jan.ai.app")]:
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(text, type=_Settings)


def _records(models: Path) -> Iterator[Path]:
    """Each `model.yml`; the id of a model may have slashes. Links to folders are not followed."""
    for folder, _, names in islice(os.walk(models), _MOST_FOLDERS):
        if "model.yml" in names:
            yield Path(folder) / "model.yml"


def _scalar(text: str) -> str:
    """A value of one line as YAML writes it: plain, or in quotes."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.MsgspecError:
            return ""
    return text.partition(" #")[0].rstrip()

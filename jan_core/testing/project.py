"""Which extension a test is about: whatever an author names it by, as a source that a host can load."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .inline import InlineSource

if TYPE_CHECKING:
    from ..loader import Source

__all__ = ["as_source", "project_of"]


def project_of(test: Path) -> Path:
    """The extension project that a test file lies in: the nearest folder above whose `pyproject.toml` has a table
    `[tool.jan.extension]`. Raises LookupError."""
    for folder in test.parents:
        try:
            document = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if "extension" in document.get("tool", {}).get("jan", {}):
            return folder
    raise LookupError(
        f"no folder above {test} is an extension's project (a pyproject.toml with [tool.jan.extension]); "
        "say which extension is tested with a fixture `extension` that returns its class or its project's folder"
    )


def as_source(extension: Any) -> Source:
    """A class, an instance, the folder of a project, or a source already.

    A class at hand gets the id `test` and owns the prefixes its methods have. Raises ManifestError for a folder without
    an extension.
    """
    from ..loader import folder_source

    if isinstance(extension, Path):
        return folder_source(extension)
    if hasattr(extension, "manifest") and hasattr(extension, "load"):
        return cast("Source", extension)
    try:
        plugin = extension() if isinstance(extension, type) else extension
        prefixes = {method.name.partition(".")[0] + "." for method in plugin.jan_methods()}
    except Exception:  # the host will meet the same, and says it better
        prefixes = set()
    return InlineSource("test", extension, sorted(prefixes))

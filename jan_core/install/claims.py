"""Who owns which id and which method prefix: a new extension takes nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import API_VERSION
from ..errors import InstallFailed
from ..lifecycle import CORE_PREFIXES
from ..manifest import Manifest, ManifestError
from . import packages
from .packages import Contributed, Installed

__all__ = ["check"]

RESERVED = ("core", "extensions", "logs", "settings")
"""Ids that would make an extension's data folder or settings those of the host."""


def check(overlays: Path, carried: Sequence[Installed], fresh: Sequence[Contributed]) -> None:
    """Refuse ids and prefixes of `fresh` that are the host's, the product's, those of `carried`, or each other's.

    Raises InstallFailed.
    """
    taken: dict[str, Manifest | None] = packages.product_extensions(overlays, API_VERSION)
    owners = {**dict.fromkeys(RESERVED, "the host"), **dict.fromkeys(taken, "this installation")}
    for package in carried:
        owners |= dict.fromkeys(dict(package.entries), package.name)
        with suppress(ManifestError):  # it was made for another host: its own trouble, and no reason to refuse this
            taken |= {e.id: e.manifest for e in packages.contributed(package, API_VERSION)}
    prefixes = dict.fromkeys(CORE_PREFIXES, "the host")
    for id, manifest in taken.items():
        prefixes |= dict.fromkeys(manifest.methods if manifest else [], id)
    for extension in fresh:
        if owner := owners.get(extension.id):
            message = f"the id {extension.id!r} of {extension.package} is that of {owner} already"
            raise InstallFailed(message, reason="conflict")
        for prefix in extension.manifest.methods:
            for theirs, owner in prefixes.items():
                if prefix.startswith(theirs) or theirs.startswith(prefix):
                    message = f"the method prefix {prefix!r} of {extension.id} reaches into {theirs!r} of {owner}"
                    raise InstallFailed(message, reason="conflict")
        owners[extension.id] = extension.package
        prefixes |= dict.fromkeys(extension.manifest.methods, extension.id)

"""Verifies a complete file with the hashes of its pieces, as far as they can be had; blocks."""

from __future__ import annotations

from collections.abc import Callable

from jan_core import StorageError

from .errors import BadSource
from .integrity.piece_lists import PieceHashes, load, stored
from .integrity.verify import verify as verify_file
from .journal import Journal
from .network.network import Network
from .records import Job
from .settings import DownloadSettings
from .shapes import Verification
from .storage.store import Store

__all__ = ["verify"]


def verify(
    job: Job,
    journal: Journal,
    store: Store,
    settings: DownloadSettings,
    repair: bool,
    stopped: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Verification:
    """As `integrity.verify`. Raises what that does, but StorageError in place of OSError."""
    try:
        hashes = _hashes(job, store, settings, repair)
        return verify_file(job.id, journal, store, hashes, repair, stopped, progress)
    except OSError as error:
        raise StorageError(f"the disk: {error.strerror or error}") from error


def _hashes(job: Job, store: Store, settings: DownloadSettings, repair: bool) -> PieceHashes | None:
    """Those that are kept here, else, where they would save bytes, those of the network."""
    if job.piece_list is None:
        return None
    try:
        hashes = stored(job.piece_list, job.expected, store)
        if hashes is None and repair:
            network = Network(settings)
            try:
                hashes = load(job.piece_list, job.expected, network, store)
            finally:
                network.close()
    except BadSource:
        return None
    return hashes

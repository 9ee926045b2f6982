"""What callers ask for, as jobs: params checked, in one spelling, each with its id."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import msgspec

from jan_core import InvalidParams
from jan_core.types import DownloadFile, PieceList

from .groups import in_order
from .names import check_file, check_url, file_name, same_name
from .records import Job
from .schedule import instant
from .shapes import ConfigureDownload, StartDownload, StartGroup

__all__ = ["changes_asked", "group_asked", "job_asked"]


def job_asked(params: StartDownload) -> Job:
    """The job of a single file. Raises InvalidParams."""
    return _job(params.file, params.destination, params, "$", time.time())


def group_asked(params: StartGroup) -> list[Job]:
    """The jobs of a group, in the order in which they are fetched. Raises InvalidParams."""
    now, group = time.time(), f"dg-{secrets.token_hex(8)}"
    jobs = [_job(each.file, each.destination, params, f"$.files[{n}]", now) for n, each in enumerate(params.files)]
    _check_names(jobs)
    ordered = [jobs[n] for n in in_order([job.file for job in jobs])]
    for position, job in enumerate(ordered):
        job.group, job.group_name, job.position = group, params.name or ordered[-1].name, position
    return ordered


def changes_asked(params: ConfigureDownload) -> dict[str, object]:
    """The fields of a job that are to be changed. Raises InvalidParams."""
    changes: dict[str, object] = {"priority": params.priority, "limit": params.limit}
    if params.not_before is not None:
        changes["not_before"] = _instant(params.not_before)
    return {name: value for name, value in changes.items() if value is not None}


def _job(file: DownloadFile, destination: str, params: StartDownload | StartGroup, path: str, now: float) -> Job:
    file = check_file(file, f"{path}.file")
    if not (file.url or file.sha256):
        raise InvalidParams("a file needs a url, or a sha256 by which a source can be found", path=f"{path}.file.url")
    if file.pieces is not None:
        _check_pieces(file.pieces, file.size, f"{path}.file.pieces")
    job_id = f"dl-{secrets.token_hex(8)}"
    return Job(
        id=job_id,
        name=file.name,
        url=file.url,
        sha256=file.sha256,
        size=file.size,
        role=file.role,
        pieces=msgspec.json.encode(file.pieces).decode() if file.pieces else "",
        destination=file_name(destination or file.name, f"{path}.destination"),
        partial=file.sha256 or job_id,
        priority=params.priority,
        limit=params.limit,
        not_before=_instant(params.not_before),
        created_at=now,
        updated_at=now,
    )


def _check_pieces(pieces: PieceList, size: int, path: str) -> None:
    from .integrity.piece_lists import problem

    check_url(pieces.url, f"{path}.url")
    if found := problem(pieces, size):
        raise InvalidParams(f"the hashes of the pieces cannot be used: {found}", path=path)


def _check_names(jobs: Sequence[Job]) -> None:
    """No two files of a group may be kept under one name."""
    seen: set[str] = set()
    for n, job in enumerate(jobs):
        if (key := same_name(job.destination)) in seen:
            raise InvalidParams(f"two files are to be kept as {job.destination}", path=f"$.files[{n}].destination")
        seen.add(key)


def _instant(text: str) -> float:
    try:
        return instant(text)
    except ValueError as error:
        raise InvalidParams(str(error), path="$.not_before") from None

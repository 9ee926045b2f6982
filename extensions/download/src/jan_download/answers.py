"""What a server's answer to a request for a file, or for the rest of one, is worth."""

from __future__ import annotations

from jan_core.types import DownloadSource

from .ranges import content_range, strong_validator
from .records import Job
from .transport import Answer, host_of

__all__ = ["announced_size", "range_problem"]


def range_problem(answer: Answer, job: Job, source: DownloadSource, offset: int) -> str:
    """Why this answer does not continue the file at `offset`; "" when it does, or sends the whole file
    (200)."""
    host = host_of(answer.url)
    if answer.status == 416:
        return f"{host} says that the range from {offset} cannot be had"
    if answer.status == 200:
        return ""
    if not offset:
        return f"{host} sends a part though the whole was asked for"
    got = content_range(answer.headers.get("Content-Range"))
    if got is None or got.first != offset:
        return f"{host} sends another part than was asked for"
    if job.expected and got.total not in (-1, job.expected):
        return f"{host} has a file of {got.total} bytes now, not {job.expected}"
    if got.total >= 0 and got.last != got.total - 1:
        return f"{host} sends less than the rest that was asked for"
    known, now = job.validator, strong_validator(answer.headers)
    if known.startswith('"') and job.source == source.url and now.startswith('"') and now != known:
        return f"{host} has another version of the file now"
    return ""


def announced_size(answer: Answer) -> int:
    """The size of the whole file as a 200 or 206 announces it; 0 when it does not."""
    if answer.status == 206:
        got = content_range(answer.headers.get("Content-Range"))
        return max(0, got.total) if got else 0
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and "Transfer-Encoding" not in answer.headers else 0

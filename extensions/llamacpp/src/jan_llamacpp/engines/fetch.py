"""Fetches one file over HTTP(S), going on with what an earlier run left of it. A script, run in a child process only.

    python fetch.py LIBRARIES JOB

`LIBRARIES` is the folder urllib3 lies in, `JOB` the fields of `Job` as a JSON object. What has arrived is in
`<path>.part`, what is needed to go on with it in `<path>.part.json`; the file gets its name once it is complete and
its hash is right. Every line of output is a JSON object: `{"at": 10, "of": 100}` in bytes while it runs (`of` null:
unknown), at last `{"size": …, "sha256": …, "type": …, "url": …}`, or `{"failed": <reason>, "message": …}` with exit
status 1. It can be killed at any moment. It knows nothing of wheels and indexes, nor whether two of it run at once;
how a server is asked is `web.py`'s.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script: it has no package then (PEP 366)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    __package__ = "jan_llamacpp.engines"

from .web import Failed, Translated, ask, host_of

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK = 1 << 18
_TRIES = 20
_INTERVAL = 0.25  # seconds between two lines of progress
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass
class Job:
    """`limit`: bytes it may have. `document`: a web page is what is wanted. Times in seconds; `repeats`: how often in a
    row it may fail without a byte arriving."""

    url: str
    path: str
    limit: int
    sha256: str = ""
    accept: str = "*/*"
    document: bool = False
    connect: float = 5.0
    stall: float = 30.0
    repeats: int = 2
    pause: float = 0.5

    @property
    def part(self) -> Path:
        return Path(self.path + ".part")

    @property
    def note(self) -> Path:
        return Path(self.path + ".part.json")


def main(job: Job) -> dict[str, Any]:
    path = Path(job.path)
    if path.is_file():
        digest = _digest(path).hexdigest()
        if not job.sha256 or digest == job.sha256:
            return {"size": path.stat().st_size, "sha256": digest, "type": "", "url": job.url}
        path.unlink()
    failures = 0
    for _ in range(_TRIES):
        before = _size(job.part)
        try:
            return _attempt(job)
        except Failed as failure:
            failures = 1 if _size(job.part) > before else failures + 1
            if not failure.again or failures > job.repeats:
                raise
            last = failure
        time.sleep(job.pause * 2 ** (failures - 1))
    raise last


def _attempt(job: Job) -> dict[str, Any]:
    known = _known(job)
    offset, validator, total = _size(job.part), str(known.get("validator", "")), known.get("total")
    if known.get("url") != job.url or not (validator or job.sha256) or (total and offset > total):
        offset, validator, total = 0, "", None
    if offset and offset == total:
        return _finish(job, _digest(job.part), resumed=True, type="", url=job.url)
    headers = {"Accept": job.accept, "Accept-Encoding": "identity", "User-Agent": "jan-engines/1"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    response, url = ask(job.url, headers, connect=job.connect, stall=job.stall)
    try:
        if (
            response.status == HTTPStatus.PARTIAL_CONTENT
            or response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        ):
            _unless_other_part(job, response, offset, total)
        else:
            offset = 0
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() else None
        _check_announced(job, response, url, offset, total)
        note = {"url": job.url, "validator": _strong_validator(response), "total": total}
        _replace(job.note, json.dumps(note).encode())
        digest = _receive(job, response, url, offset, total)
    finally:
        response.close()
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return _finish(job, digest, resumed=offset > 0, type=kind, url=url)


def _unless_other_part(job: Job, response: BaseHTTPResponse, offset: int, total: int | None) -> None:
    """Begin anew when the answer does not go on where we are: the file is another one by now."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    of = int(match[3]) if match and match[3] != "*" else None
    if response.status == 416 or not match or int(match[1]) != offset or (total and of and of != total):
        job.part.unlink(missing_ok=True)
        job.note.unlink(missing_ok=True)
        raise Failed("server", f"{host_of(job.url)} does not go on with the file where it was", again=True)


def _check_announced(job: Job, response: BaseHTTPResponse, url: str, offset: int, total: int | None) -> None:
    if not job.document and response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Failed(
            "web_page",
            f"{host_of(url)} answered with a web page instead of the file (does the network want a sign-in?)",
        )
    if total and total > job.limit:
        raise Failed("server", f"{host_of(url)} announces {total} bytes; at most {job.limit} are taken")
    if total and shutil.disk_usage(job.part.parent).free < total - offset:
        raise Failed("disk_full", f"the disk is full: {total - offset} bytes are still to come")


def _receive(job: Job, response: BaseHTTPResponse, url: str, offset: int, total: int | None) -> Any:
    shown = 0.0
    with job.part.open("r+b" if offset else "wb", buffering=0) as file:
        digest = _digest(job.part) if offset else hashlib.sha256()
        file.seek(offset)
        at = offset
        while True:
            with Translated(url):
                data = response.read1(_CHUNK, decode_content=False)
            if not data:
                break
            if at + len(data) > job.limit:
                raise Failed("server", f"{host_of(url)} sends more than {job.limit} bytes")
            file.write(data)
            digest.update(data)
            at += len(data)
            if time.monotonic() - shown >= _INTERVAL or at == total:
                shown = time.monotonic()
                _say({"at": at, "of": total})
        os.fsync(file.fileno())
    if total is not None and at < total:
        raise Failed("truncated", f"{host_of(url)} sent {at} of {total} bytes", again=True)
    return digest


def _finish(job: Job, digest: Any, *, resumed: bool, type: str, url: str) -> dict[str, Any]:
    actual = digest.hexdigest()
    if job.sha256 and actual != job.sha256:
        job.part.unlink(missing_ok=True)
        job.note.unlink(missing_ok=True)
        message = f"what {host_of(url)} sent is not what was asked for: its SHA-256 is {actual}, not {job.sha256}"
        raise Failed("wrong_hash", message, again=resumed)  # two versions may have been put together
    size = job.part.stat().st_size
    job.part.replace(job.path)
    job.note.unlink(missing_ok=True)
    return {"size": size, "sha256": actual, "type": type, "url": url}


def _known(job: Job) -> dict[str, Any]:
    try:
        known = json.loads(job.note.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _strong_validator(response: BaseHTTPResponse) -> str:
    """What If-Range may carry (RFC 9110, 13.1.5): a strong ETag. Last-Modified is not taken: two versions of one
    second have the same."""
    etag = response.headers.get("ETag", "").strip()
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else ""


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _say(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    try:
        outcome = main(Job(**json.loads(sys.argv[2])))
    except Failed as failure:
        outcome = {"failed": failure.reason, "message": str(failure)}
    except OSError as failure:
        full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
        outcome = {"failed": "disk_full" if full else "permission", "message": f"the file cannot be kept: {failure}"}
    _say(outcome)
    sys.exit(1 if "failed" in outcome else 0)

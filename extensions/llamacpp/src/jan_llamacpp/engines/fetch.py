"""Fetches one file over HTTP(S), going on with what an earlier run left of it. A script, run in a child process only.

    python fetch.py LIBRARIES JOB

`LIBRARIES` is the folder urllib3 lies in, `JOB` the fields of `Job` as a JSON object. What has arrived is in
`<path>.part`, what is needed to go on with it in `<path>.part.json`; the file gets its name once it is complete and
its hash is right. Every line of output is a JSON object: `{"at": 10, "of": 100}` in bytes while it runs (`of` null:
unknown), at last `{"size": …, "sha256": …, "type": …, "url": …}`, or `{"failed": <reason>, "message": …}` with exit
status 1. It can be killed at any moment. It knows nothing of wheels and indexes, nor whether two of it run at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
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
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK = 1 << 18
_HOPS = 10
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


class Failed(Exception):
    """`again`: the same request may do better."""

    def __init__(self, reason: str, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.reason, self.again = reason, again


def may_ask(url: str) -> bool:
    """Whether this address may be asked: over TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)))


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


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
    response, url = _get(job, headers)
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


def _get(job: Job, headers: dict[str, str]) -> tuple[BaseHTTPResponse, str]:
    """The answer to read, and the address it came from: redirects are followed by hand, as each has to be allowed."""
    import urllib3

    url = job.url
    timeout = urllib3.Timeout(connect=job.connect, read=job.stall)
    for _ in range(_HOPS):
        if not may_ask(url):
            raise Failed("refused", f"{_host(url)}: only https, or http on this machine, is asked")
        with _Translated(url):
            response: BaseHTTPResponse = _pool(url).request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False, timeout=timeout
            )
        if target := response.get_redirect_location():
            response.close()
            safe, url = url.startswith("https:"), urljoin(url, target)
            if safe and not url.startswith("https:"):
                raise Failed("refused", f"{_host(job.url)} leads from https to {_host(url)} without")
            continue
        if response.status in (200, 206, 416):
            return response, url
        response.close()
        _refuse(url, response.status)
    raise Failed("server", f"{_host(job.url)} redirects without end")


def _refuse(url: str, status: int) -> None:
    said = f"{_host(url)} answered {status} {HTTPStatus(status).phrase if status in list(HTTPStatus) else ''}".rstrip()
    if status in (404, 410):
        raise Failed("not_found", said)
    raise Failed("server", said, again=status >= 500 or status in (408, 429))


def _pool(url: str) -> Any:
    import urllib.request

    import urllib3

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or _is_this_machine(host) or urllib.request.proxy_bypass(host):
        return urllib3.PoolManager()
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in ("http", "https"):
        raise Failed("network", f"proxies of the kind {parts.scheme}:// are not supported, only http:// and https://")
    login = f"{parts.username}:{parts.password or ''}" if parts.username else None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(bare, proxy_headers=urllib3.make_headers(proxy_basic_auth=login))


def _unless_other_part(job: Job, response: BaseHTTPResponse, offset: int, total: int | None) -> None:
    """Begin anew when the answer does not go on where we are: the file is another one by now."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    of = int(match[3]) if match and match[3] != "*" else None
    if response.status == 416 or not match or int(match[1]) != offset or (total and of and of != total):
        job.part.unlink(missing_ok=True)
        job.note.unlink(missing_ok=True)
        raise Failed("server", f"{_host(job.url)} does not go on with the file where it was", again=True)


def _check_announced(job: Job, response: BaseHTTPResponse, url: str, offset: int, total: int | None) -> None:
    if not job.document and response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Failed(
            "web_page", f"{_host(url)} answered with a web page instead of the file (does the network want a sign-in?)"
        )
    if total and total > job.limit:
        raise Failed("server", f"{_host(url)} announces {total} bytes; at most {job.limit} are taken")
    if total and shutil.disk_usage(job.part.parent).free < total - offset:
        raise Failed("disk_full", f"the disk is full: {total - offset} bytes are still to come")


def _receive(job: Job, response: BaseHTTPResponse, url: str, offset: int, total: int | None) -> Any:
    shown = 0.0
    with job.part.open("r+b" if offset else "wb", buffering=0) as file:
        digest = _digest(job.part) if offset else hashlib.sha256()
        file.seek(offset)
        at = offset
        while True:
            with _Translated(url):
                data = response.read1(_CHUNK, decode_content=False)
            if not data:
                break
            if at + len(data) > job.limit:
                raise Failed("server", f"{_host(url)} sends more than {job.limit} bytes")
            file.write(data)
            digest.update(data)
            at += len(data)
            if time.monotonic() - shown >= _INTERVAL or at == total:
                shown = time.monotonic()
                _say({"at": at, "of": total})
        os.fsync(file.fileno())
    if total is not None and at < total:
        raise Failed("truncated", f"{_host(url)} sent {at} of {total} bytes", again=True)
    return digest


def _finish(job: Job, digest: Any, *, resumed: bool, type: str, url: str) -> dict[str, Any]:
    actual = digest.hexdigest()
    if job.sha256 and actual != job.sha256:
        job.part.unlink(missing_ok=True)
        job.note.unlink(missing_ok=True)
        message = f"what {_host(url)} sent is not what was asked for: its SHA-256 is {actual}, not {job.sha256}"
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


def _host(url: str) -> str:
    """For messages: an address may hold secrets."""
    try:
        return urlsplit(url).hostname or "the server"
    except ValueError:
        return "the server"


def _say(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


class _Translated:
    """Turns what urllib3 and the socket raise into Failed."""

    def __init__(self, url: str) -> None:
        self._host = _host(url)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import urllib3.exceptions as u

        if isinstance(error, u.ReadTimeoutError | TimeoutError):
            raise Failed("slow", f"{self._host} stopped sending", again=True) from error
        if isinstance(error, u.SSLError):
            raise Failed("network", f"no safe connection to {self._host}: {error}") from error
        if isinstance(error, u.NewConnectionError | u.ConnectTimeoutError | u.ProxyError | u.LocationValueError):
            raise Failed("network", f"no connection to {self._host}") from error
        if isinstance(error, u.ProtocolError | ConnectionError):
            raise Failed("truncated", f"{self._host} ended the connection too early", again=True) from error
        if isinstance(error, u.HTTPError):
            raise Failed("network", f"{self._host}: {error}") from error


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

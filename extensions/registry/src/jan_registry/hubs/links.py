"""Addresses of files, as hubs write them: which may be followed, and what those of Hugging Face's form name.

Pure; nothing is resolved or fetched.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

__all__ = ["RepoPath", "link", "repo_path"]

_UNESCAPED = re.compile(r"[^\x21-\x7e]|%(?![0-9A-Fa-f]{2})|[\"<>\\^`{|}]")
_RESOLVE = re.compile(
    r"/(?P<repo>[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})/(?:resolve|blob)/(?P<rev>[^/]+)/(?P<path>.+)"
)


class RepoPath(NamedTuple):
    """A file in a repository. `rev`: a commit, or a branch, whose files may change."""

    host: str
    repo: str
    rev: str
    path: str


def link(url: str) -> str:
    """`url` with what must be escaped escaped; "" when it must not be followed: neither https nor of this machine, with
    credentials in it, or longer than 4096 characters."""
    url = _UNESCAPED.sub(lambda found: quote(found[0], errors="replace"), url.strip())
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    near = parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")
    bare = parts.username is None and parts.password is None and "%" not in parts.netloc
    return url if (parts.scheme == "https" or near) and host and port != 0 and bare and len(url) <= 4096 else ""


def repo_path(url: str) -> RepoPath | None:
    """What an address of the form `https://HOST/OWNER/NAME/resolve/REV/PATH` names; None for another."""
    safe = link(url)
    parts = urlsplit(safe)
    found = _RESOLVE.fullmatch(parts.path)
    if found is None:
        return None
    path = unquote(found["path"])
    if any(part in ("", ".", "..") for part in path.split("/")):
        return None
    return RepoPath(parts.hostname or "", found["repo"], unquote(found["rev"]), path)

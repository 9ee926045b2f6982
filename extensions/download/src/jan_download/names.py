"""What a client may name: a file inside the store, a URL, a hash. Everything else is refused before it
touches anything."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

from jan_core import InvalidParams
from jan_core.types import DownloadFile

__all__ = ["check_file", "check_url", "file_name", "same_name"]

_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def file_name(name: str, path: str) -> str:
    """A plain file name that means the same on every platform, in NFC.

    Raises InvalidParams naming the field `path` for anything that could leave the folder or that some file
    system would read otherwise: separators, `..`, control and invisible characters, Windows device names
    and stream names.
    """
    name = unicodedata.normalize("NFC", name)
    if not name:
        problem = "is empty"
    elif any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in name):
        problem = "has control or invisible characters"
    elif any(c in '/\\<>:"|?*' for c in name):
        problem = 'must be a plain file name, without any of / \\ < > : " | ? *'
    elif name.startswith(".") or name[-1] in ". " or name[0] == " ":
        problem = "must not begin with a dot or a space, nor end with one"
    elif _RESERVED.fullmatch(name):
        problem = "is a device name on Windows"
    elif len(name.encode()) > 200:
        problem = "is longer than 200 bytes"
    else:
        return name
    raise InvalidParams(f"the file name {name[:80]!r} {problem}", path=path)


def same_name(name: str) -> str:
    """The key under which two names would be one file on a case-insensitive disk."""
    return unicodedata.normalize("NFC", name.casefold())


def check_url(url: str, path: str) -> str:
    """An absolute http or https URL without credentials in it.

    Raises InvalidParams. Credentials in a URL would end up in records and logs; sources carry them as
    headers.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidParams(f"not a URL: {error}", path=path) from None
    if parts.scheme not in ("http", "https"):
        problem = "must begin with https:// or http://"
    elif not parts.hostname or port == 0:
        problem = "names no host"
    elif parts.username is not None or parts.password is not None:
        problem = "must not carry a user name or password"
    elif len(url) > 8192 or not url.isascii() or not url.isprintable() or " " in url:
        problem = "must be at most 8192 printable ASCII characters; encode others as %XX"
    else:
        return url
    raise InvalidParams(f"the URL {problem}", path=path)


def check_file(file: DownloadFile, path: str = "$.file") -> DownloadFile:
    """The file with its fields checked and in one spelling. Raises InvalidParams naming the bad field below `path`."""
    sha256 = file.sha256.strip().lower().removeprefix("sha256:")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise InvalidParams("a SHA-256 has 64 hexadecimal digits", path=f"{path}.sha256")
    if not 0 <= file.size < 2**62:
        raise InvalidParams("the size must be 0 (unknown) or more", path=f"{path}.size")
    if file.url:
        check_url(file.url, f"{path}.url")
    name = file_name(file.name, f"{path}.name")
    return DownloadFile(name=name, url=file.url, sha256=sha256, size=file.size, role=file.role, pieces=file.pieces)

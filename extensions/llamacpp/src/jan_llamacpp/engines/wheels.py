"""What a wheel of the engine is, and which one of a package index suits this machine (PEP 427, 503, 592, 691).

It opens no socket (`fetch.py` does) and installs nothing. A wheel of the engine is tagged `py3-none-<platform>`, as the
engine is reached through ctypes; tags of one Python version, as older releases had, are taken when they fit.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec
from msgspec import Struct, field
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from .builds import version_key
from .diagnosis import AttemptFailed

__all__ = ["PACKAGE", "Offer", "best_of", "check_file", "offers", "version_in"]

PACKAGE = "llama-cpp-python"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Offer(Struct, frozen=True):
    """A file that an index lists. `sha256`: as hex, empty where the index does not tell."""

    filename: str
    url: str
    sha256: str = ""
    requires_python: str = ""


class _File(Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    requires_python: str | None = field(default=None, name="requires-python")
    yanked: bool | str = False


class _Project(Struct):
    files: list[_File]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.anchors: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "base":
            self.base = found.get("href", "")
        elif tag == "a" and "href" in found:
            self.anchors.append(found)


def offers(page: bytes, content_type: str, url: str) -> list[Offer]:
    """The files of the engine that a page of an index lists, without the withdrawn ones.

    Raises AttemptFailed (`web_page`) for a page that is none of an index: a sign-in page, an error page, …
    """
    try:
        found = _from_json(page, url) if content_type.endswith("json") else _from_html(page, url)
    except ValueError:  # msgspec's errors are ValueErrors
        found = []
    found = [offer for offer in found if _is_engine(offer.filename)]
    if not found:
        host = urlsplit(url).hostname
        raise AttemptFailed(
            "web_page", f"what {host} answered is not a package index with {PACKAGE} (does the network want a sign-in?)"
        )
    return found


def best_of(found: Iterable[Offer], version: str, tags: Iterable[Tag] | None = None) -> Offer:
    """The wheel of this version that suits this machine best. `tags`: most wanted first; default: this Python's.

    Raises AttemptFailed (`not_found`) with what there is instead.
    """
    rank = {tag: place for place, tag in reversed(list(enumerate(tags or sys_tags())))}
    suited: list[tuple[tuple[object, ...], Offer]] = []
    others, platforms = set(), set()
    for offer in found:
        try:
            _, has, build, wheel_tags = parse_wheel_filename(offer.filename)
        except (InvalidWheelFilename, InvalidVersion):
            continue
        if Version(has.public) != Version(version):
            others.add(has)
            continue
        fitting = [rank[tag] for tag in wheel_tags if tag in rank]
        if fitting and _for_this_python(offer):
            suited.append(((bool(has.local), version_key(has.local or ""), build, -min(fitting)), offer))
        platforms |= {tag.platform for tag in wheel_tags}
    if suited:
        return max(suited, key=lambda pair: pair[0])[1]
    if platforms:
        raise AttemptFailed(
            "not_found", f"the index has {version} for {', '.join(sorted(platforms))}, not for this system"
        )
    newest = f"; its newest is {max(others)}" if others else ""
    raise AttemptFailed("not_found", f"the index has no wheel of version {version}{newest}")


def check_file(path: Path, version: str, sha256: str = "") -> str:
    """Whether this file is a wheel of the engine, of this version, for this machine; returns its SHA-256 as hex.

    Raises AttemptFailed: `not_a_wheel`, `wrong_package`, `wrong_version`, `wrong_platform`, `wrong_hash`.
    """
    has, tags = _named(path)
    if Version(has.public) != Version(version):
        raise AttemptFailed("wrong_version", f"{path.name} is version {has}, not {version}")
    if not any(tag in tags for tag in sys_tags()):
        theirs = ", ".join(sorted({tag.platform for tag in tags}))
        raise AttemptFailed(
            "wrong_platform", f"{path.name} is for {theirs}; this system takes {next(sys_tags()).platform}"
        )
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        with zipfile.ZipFile(path) as archive:
            inside = {name for name in archive.namelist() if name.endswith(".dist-info/METADATA")}
            engine = any(name.startswith("llama_cpp/") for name in archive.namelist())
    except zipfile.BadZipFile:
        raise AttemptFailed(
            "not_a_wheel", f"{path.name} is damaged, or no wheel: it is not a whole zip archive"
        ) from None
    except OSError as error:
        raise AttemptFailed("permission", f"{path.name} cannot be read: {error.strerror}") from None
    if sha256 and actual != sha256.lower():
        raise AttemptFailed("wrong_hash", f"{path.name} has the SHA-256 {actual}, not {sha256.lower()}")
    if not inside or not engine:
        raise AttemptFailed("wrong_package", f"{path.name} does not hold {PACKAGE}")
    return actual


def version_in(path: Path) -> str:
    """The engine's version by the name of a wheel file. Raises AttemptFailed as `check_file` does."""
    return _named(path)[0].public


def _named(path: Path) -> tuple[Version, frozenset[Tag]]:
    if path.name.endswith(_ARCHIVES):
        raise AttemptFailed("not_a_wheel", f"{path.name} is a source archive; a wheel (.whl) is needed")
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
    except (InvalidWheelFilename, InvalidVersion):
        shape = f"{PACKAGE.replace('-', '_')}-<version>-py3-none-<platform>.whl"
        raise AttemptFailed("not_a_wheel", f"{path.name} is not named as a wheel is: {shape}") from None
    if name != PACKAGE:
        raise AttemptFailed("wrong_package", f"{path.name} is the package {name}, not {PACKAGE}")
    return version, tags


def _from_json(page: bytes, url: str) -> list[Offer]:
    return [
        Offer(file.filename, urljoin(url, file.url), _hash(file.hashes.get("sha256", "")), file.requires_python or "")
        for file in msgspec.json.decode(page, type=_Project).files
        if file.yanked is False
    ]


def _from_html(page: bytes, url: str) -> list[Offer]:
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    base = urljoin(url, links.base)
    found = []
    for anchor in links.anchors:
        if "data-yanked" in anchor:
            continue
        address, fragment = urldefrag(urljoin(base, anchor["href"]))
        filename = unquote(urlsplit(address).path.rpartition("/")[2])
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        found.append(Offer(filename, address, _hash(sha256), anchor.get("data-requires-python", "")))
    return found


def _hash(text: str) -> str:
    """A SHA-256 as hex; what is none counts as not told."""
    return text.lower() if _SHA256.fullmatch(text.lower()) else ""


def _is_engine(filename: str) -> bool:
    for parse in (parse_wheel_filename, parse_sdist_filename):
        try:
            return str(parse(filename)[0]) == PACKAGE
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            continue
    return False


def _for_this_python(offer: Offer) -> bool:
    import platform

    try:
        return SpecifierSet(offer.requires_python).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier:
        return True

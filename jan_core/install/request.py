"""What a person asked for, as a requirement: a name, an address, a wheel, a project's folder.

What comes from a file is kept as a wheel beside the packages, so that the next overlay can be made without that file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from ..errors import InstallFailed, InvalidParams
from .overlay import Overlay, Requirement
from .packages import canonical
from .resolve import Uv
from .threads import off_loop

__all__ = ["requirement"]

_NAME = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"  # PEP 508, without markers and addresses; one line
    r" *(\[[A-Za-z0-9._, -]+\])?"
    r" *([<>=!~][A-Za-z0-9<>=!~.,*+ -]*)?"
)
_WHEEL = re.compile(r"([A-Za-z0-9._]+)-([A-Za-z0-9._!+]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")
_ARCHIVES = (".tar.gz", ".zip")


async def requirement(source: str, uv: Uv, stage: Overlay) -> Requirement:
    """The requirement that `source` stands for; a wheel that comes from a file lies in `stage.wheels` then.

    A project's folder and a source archive are built, which runs their code. Raises InvalidParams, InstallFailed.
    """
    more: dict[str, Any] = {
        "indexes": [_without_password(url) for url in uv.places.indexes],
        "find_links": list(uv.places.find_links),
    }
    if source.startswith("file://"):  # kept like any file: it may be gone when the next overlay is made
        source = url2pathname(urlsplit(source).path)
    if source.startswith(("https://", "http://")):
        wheel = _WHEEL.fullmatch(unquote(urlsplit(source).path).rpartition("/")[2])
        if not wheel or any(c.isspace() for c in source):
            raise InvalidParams("an address must be that of a wheel (.whl)", path="$.source")
        if "@" in urlsplit(source).netloc:
            raise InvalidParams("an address carries no password: uv takes it from .netrc", path="$.source")
        name = canonical(wheel[1])
        return Requirement(name, f"{name} @ {source}", **more)
    if Path(source).is_absolute():
        file = await _wheel(Path(source), uv, stage)
        wheel = _WHEEL.fullmatch(file.name)
        if not wheel:
            raise InvalidParams(f"{file.name} is no name of a wheel", path="$.source")
        return Requirement(canonical(wheel[1]), source, file.name, await off_loop(_sha256, file), **more)
    named = _NAME.fullmatch(source.strip())
    if not named:
        message = f"{source!r} is neither a package's name nor an address nor an absolute path"
        raise InvalidParams(message, path="$.source")
    return Requirement(canonical(named[1]), source.strip(), **more)


async def _wheel(path: Path, uv: Uv, stage: Overlay) -> Path:
    kind = await off_loop(_kind, path)
    if kind == "project":
        return await uv.build(path, stage.wheels)
    if kind == "wheel":
        await off_loop(shutil.copyfile, path, stage.wheels / path.name)
        return stage.wheels / path.name
    if kind == "nothing":
        raise InstallFailed(f"{path} is not there", reason="not_found")
    raise InvalidParams(f"{path} is neither a wheel nor a project", path="$.source")


def _kind(path: Path) -> str:
    if not path.exists():
        return "nothing"
    if path.is_dir() or (path.is_file() and path.name.endswith(_ARCHIVES)):
        return "project"
    return "wheel" if path.suffix == ".whl" and path.is_file() else "file"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_password(url: str) -> str:
    """The address without the credentials in it: records are read by others."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

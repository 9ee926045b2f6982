#!/usr/bin/env python3
"""From a fresh clone to a running command, with nothing installed but Python (3.11 or newer).

    python3 bootstrap.py jan chat "What is an extension?"
    python3 bootstrap.py tox

Makes `.venv` beside this file, with every dependency checked against the hashes in requirements/, then runs the
command in it. The second time it starts at once. What was fetched before is enough without a network, in a new clone
too: packages are in uv's cache, and uv itself is kept in the user's cache folder. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
STAMP = VENV / "bootstrap.sha256"
PINS = ["--constraint", "requirements/pins.txt", "--build-constraint", "requirements/pins.txt"]
PROJECTS = [ROOT, ROOT / "sidecar", *sorted(path.parent for path in ROOT.glob("extensions/*/pyproject.toml"))]


class Failed(Exception):
    """The environment cannot be made; the text says why and what to do."""


def fingerprint() -> str:
    """Changes when anything that decides what is installed changes."""
    files = [Path(__file__), *sorted((ROOT / "requirements").iterdir()), *(p / "pyproject.toml" for p in PROJECTS)]
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


def install() -> None:
    """Make the environment. Raises Failed."""
    print(f"making {VENV.name}: about a minute the first time", file=sys.stderr)
    broken = VENV.exists() and not (BIN / "python").exists() and not (BIN / "python.exe").exists()
    try:
        venv.create(VENV, with_pip=True, clear=broken)
    except (subprocess.CalledProcessError, OSError) as error:
        hint = "; on Debian and Ubuntu: apt install python3-venv"
        raise Failed(f"this Python cannot make virtual environments ({error}){hint}") from error
    projects = [argument for project in PROJECTS for argument in ("--editable", str(project))]
    command = [uv(), "pip", "install", "--quiet", "--python", str(BIN / "python"), *PINS, "tox", "tox-uv", *projects]
    # Without a network, what was fetched before is enough.
    if run(*command) and run(*command, "--offline"):
        raise Failed("the packages cannot be had; is there a network?")


def uv() -> str:
    """uv's executable, of the pinned version: kept in the user's cache folder, for other clones. Raises Failed."""
    pin = (ROOT / "requirements" / "uv.txt").read_bytes()
    base = os.environ.get("LOCALAPPDATA" if WINDOWS else "XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "jan-bootstrap" / f"uv-{hashlib.sha256(pin).hexdigest()[:16]}"
    executable = folder / "bin" / ("uv.exe" if WINDOWS else "uv")
    if not executable.exists():
        staging = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if run(*pip, "--require-hashes", "--no-deps", "--target", str(staging), "-r", "requirements/uv.txt"):
            raise Failed("uv cannot be had; is there a network?")
        try:
            staging.rename(folder)
        except OSError:  # another bootstrap was faster
            shutil.rmtree(staging, ignore_errors=True)
    return str(executable)


def offline() -> bool:
    """Whether the package index cannot be reached."""
    probe = ["pip", "install", "--dry-run", "--no-deps", "--refresh-package", "uv", "--reinstall-package", "uv"]
    command = [uv(), *probe, "--python", str(BIN / "python"), *PINS, "uv"]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode != 0


def run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT).returncode


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (it is run by whatever Python there is)
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    if not sys.argv[1:]:
        print(__doc__)
        return 2
    name, *arguments = sys.argv[1:]
    try:
        wanted = fingerprint()
        if not STAMP.exists() or STAMP.read_text() != wanted:
            install()
            STAMP.write_text(wanted)
        environment = dict(os.environ)
        if name == "tox" and "UV_OFFLINE" not in environment and offline():
            environment["UV_OFFLINE"] = "1"  # tox installs into environments of its own, through uv
    except Failed as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    command = shutil.which(name, path=str(BIN))
    if command is None:
        print(f"bootstrap: {VENV.name} has no command {name!r}", file=sys.stderr)
        return 2
    if not WINDOWS:
        sys.stdout.flush()
        os.execve(command, [command, *arguments], environment)  # signals and the terminal are the command's own
    try:
        return subprocess.run([command, *arguments], env=environment).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())

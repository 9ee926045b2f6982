#!/usr/bin/env python3
"""From a fresh clone to a running command, with nothing installed but Python (3.11 or newer).

    python3 bootstrap.py jan chat "What is an extension?"
    python3 bootstrap.py tox

Makes `.venv` beside this file, with every dependency checked against the hashes in requirements/, then runs the
command in it. The second time it starts at once, also without a network. Uses the standard library only.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "bootstrap.sha256"
PROJECTS = [ROOT, ROOT / "sidecar", *sorted(path.parent for path in ROOT.glob("extensions/*/pyproject.toml"))]


def fingerprint() -> str:
    """Changes when anything that decides what is installed changes."""
    files = [Path(__file__), *sorted((ROOT / "requirements").iterdir()), *(p / "pyproject.toml" for p in PROJECTS)]
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


def install() -> None:
    """Make the environment. Raises CalledProcessError when a package cannot be had."""
    print(f"making {VENV.name}: about a minute the first time", file=sys.stderr)
    venv.create(VENV, with_pip=True, clear=not (BIN / "python").exists() and VENV.exists())
    python = str(BIN / "python")
    if subprocess.run([python, "-m", "uv", "--version"], capture_output=True).returncode != 0:
        run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", "requirements/uv.txt")
    pinned = ["--constraint", "requirements/pins.txt", "--build-constraint", "requirements/pins.txt"]
    projects = [argument for project in PROJECTS for argument in ("--editable", str(project))]
    command = [python, "-m", "uv", "pip", "install", "--quiet", "--python", python, *pinned, "tox", "tox-uv", *projects]
    try:
        run(*command)
    except subprocess.CalledProcessError:
        run(*command, "--offline")  # without a network, what was fetched before is enough


def run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (it is run by whatever Python there is)
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    if not sys.argv[1:]:
        print(__doc__)
        return 2
    wanted = fingerprint()
    if not STAMP.exists() or STAMP.read_text() != wanted:
        try:
            install()
        except subprocess.CalledProcessError as error:
            print(f"bootstrap: {' '.join(map(str, error.cmd[:6]))} … failed; is there a network?", file=sys.stderr)
            return 1
        STAMP.write_text(wanted)
    command = BIN / (sys.argv[1] + (".exe" if os.name == "nt" else ""))
    if not command.exists():
        print(f"bootstrap: {VENV.name} has no command {sys.argv[1]!r}", file=sys.stderr)
        return 2
    try:
        return subprocess.run([str(command), *sys.argv[2:]]).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())

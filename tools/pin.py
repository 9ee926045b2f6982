"""Pin every dependency of the workspace: versions and hashes into requirements/, versions into pyproject.toml.

    .venv/bin/python tools/pin.py            # resolve anew
    .venv/bin/python tools/pin.py --check    # do the files agree with pins.txt?  (no network; not: is it still enough)

`requirements/pins.txt` carries hashes and names no index; it constrains every install the README and tox make.
`uv run` resolves by itself and reads no such file, so the same versions stand in pyproject.toml as
constraint-dependencies. `requirements/uv.txt` is the part that installs uv itself, with pip.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "pins.txt"
UV = ROOT / "requirements" / "uv.txt"
PROJECT = ROOT / "pyproject.toml"
BEGIN, END = "# pins: begin (tools/pin.py)\n", "# pins: end\n"
HEADER = "# Written by tools/pin.py. Hashes of every file of each pinned version; no index is named.\n"


def resolve() -> str:
    """All pins with hashes, for every platform, as text."""
    own = sorted(path.parent.name for path in ROOT.glob("extensions/*/pyproject.toml"))
    projects = ["pyproject.toml", "sidecar/pyproject.toml", *(f"extensions/{name}/pyproject.toml" for name in own)]
    names = ["jan-core", "jan-sidecar", *(f"jan-{name}" for name in own)]
    command = ["uv", "pip", "compile", *projects, "requirements/build.in"]
    command += [word for group in ("test", "lint", "bench") for word in ("--group", group)]
    command += ["--universal", "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "--quiet"]
    command += [f"--no-emit-package={name}" for name in names]
    return HEADER + subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def blocks(pins: str) -> list[str]:
    """The requirements of a pins file, each with its hashes."""
    return re.findall(r"^[a-z0-9].*(?:\n    .*)*", pins, re.MULTILINE)


def constrained(project: str, pins: str) -> str:
    """pyproject.toml with the versions of `pins` between the markers."""
    lines = [
        f'    "{block.splitlines()[0].removesuffix(" " + chr(92)).replace(chr(34), chr(39))}",\n'
        for block in blocks(pins)
    ]
    head, rest = project.split(BEGIN)
    return head + BEGIN + "constraint-dependencies = [\n" + "".join(lines) + "]\n" + END + rest.split(END)[1]


def uv_only(pins: str) -> str:
    """The part of `pins` that is uv."""
    return HEADER + "".join(block + "\n" for block in blocks(pins) if block.startswith("uv=="))


def main() -> int:
    check = "--check" in sys.argv[1:]
    pins = PINS.read_text("utf-8") if check else resolve()
    wanted = {PINS: pins, UV: uv_only(pins), PROJECT: constrained(PROJECT.read_text("utf-8"), pins)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} does not agree with requirements/pins.txt; run tools/pin.py")
        else:
            path.write_text(text := wanted[path], "utf-8")
            print(f"wrote {path.relative_to(ROOT)} ({text.count('==')} pins)")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

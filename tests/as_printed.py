"""A page of the documentation, done as printed: its edits made, its commands typed, what they print compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["FENCED", "Person"]

FENCED = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Person:
    """A person at a shell who does what the page says. In what is shown, … stands for anything, alone for any lines.

    `said` stands in for addresses and folders of the page that a test cannot have.
    """

    def __init__(self, folder: Path, said: dict[str, str]) -> None:
        self._home, self._folder, self._said = folder, folder, said
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "JAN_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "JAN_DATA_DIR": str(folder / "data"),
            "HOME": str(folder),
        }

    def edit(self, file: str, text: str) -> None:
        old, new = ("".join(f"{line[1:]}\n" for line in text.splitlines() if line[0] == sign) for sign in "-+")
        before = (self._folder / file).read_text("utf-8")
        assert before.count(old) == 1, old
        (self._folder / file).write_text(before.replace(old, new), "utf-8")

    def type(self, text: str) -> None:
        for command in re.split(r"^\$ ", self.here(text), flags=re.MULTILINE)[1:]:
            line, _, shown = command.partition("\n")
            if line.startswith("cd "):
                self._folder /= line.split()[1]
                continue
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self._environment[name] = value.strip("'")
                continue
            done = subprocess.run(
                ["bash", "-c", f"{line} 2>&1"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=120,
            )
            assert self._fits(shown, done.stdout), f"$ {line}\n{done.stdout}\nis not\n{shown}"
            assert (done.returncode == 0) == ("\njan: " not in f"\n{shown}"), f"$ {line}\n{done.stdout}"

    def here(self, text: str) -> str:
        for stated, meant in self._said.items():
            text = text.replace(stated, meant)
        return text

    @staticmethod
    def _fits(shown: str, printed: str) -> bool:
        # Two streams in one: lines may come in another order than on a terminal, but none may be missing.
        patterns = [
            ".*".join(re.escape(part) for part in line.split("…")) for line in shown.splitlines() if line != "…"
        ]
        lines = printed.splitlines()
        for pattern in patterns:
            found = next((line for line in lines if re.fullmatch(pattern, line)), None)
            if found is None:
                return False
            lines.remove(found)
        return "…" in shown.splitlines() or not lines

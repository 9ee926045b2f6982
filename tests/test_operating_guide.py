"""docs/operating.md is done as printed, from an empty folder to the end of the migration, with nginx between."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "operating.md").read_text("utf-8")
FENCED = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.DOTALL | re.MULTILINE)
TINY = next((ROOT / "extensions/llamacpp/src/jan_llamacpp/models").glob("*.gguf"))
CATALOGUE = [
    {
        "model_name": f"{name}-gguf",
        "developer": "janhq",
        "library_name": "gguf",
        "quants": [
            {
                "model_id": f"{name}-Q4_K_M",
                "path": f"https://huggingface.co/janhq/{name}-gguf/resolve/main/{name}-Q4_K_M.gguf",
                "file_size": "0.1 GB",
            }
        ],
    }
    for name in ("Jan-tiny", "Jan-large")
]


class Operator:
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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """What the page calls http://127.0.0.1:8080/: its own configuration on a free port, or the folder itself."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:  # Debian's package nginx-light has it
        yield (tmp_path / "srv/www/registry").as_uri()
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = next(text for language, _, text in FENCED.findall(GUIDE) if language == "nginx")
    server = server.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/srv", str(tmp_path / "srv"))
    scratch = "".join(
        f"{kind}_temp_path {tmp_path};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{scratch}{server}}}\n"
    )
    process = subprocess.Popen([binary, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_the_guide_leads_from_nothing_to_the_end_of_the_migration(tmp_path: Path, served: str) -> None:
    shutil.copy(TINY, tmp_path / "tiny-Q8_0.gguf")
    (tmp_path / "model_catalog_v2.json").write_text(json.dumps(CATALOGUE))
    person = Operator(tmp_path, {"/srv": str(tmp_path / "srv"), "http://127.0.0.1:8080": served})
    for language, file, text in FENCED.findall(GUIDE):
        if language == "diff":
            person.edit(file, text)
        elif language == "console":
            person.type(text)
        else:
            assert language == "nginx"

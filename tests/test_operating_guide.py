"""docs/operating.md is done as printed, from an empty folder to the end of the migration, with nginx between."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .as_printed import FENCED, Person

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "operating.md").read_text("utf-8")
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
    person = Person(tmp_path, {"/srv": str(tmp_path / "srv"), "http://127.0.0.1:8080": served})
    for language, file, text in FENCED.findall(GUIDE):
        if language == "diff":
            person.edit(file, text)
        elif language == "console":
            person.type(text)
        else:
            assert language == "nginx"

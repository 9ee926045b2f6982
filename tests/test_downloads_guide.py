"""docs/downloads.md is done as printed, with a web server in the place of the one it names."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .as_printed import FENCED, Person

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "downloads.md").read_text("utf-8")
TINY = next((ROOT / "extensions/llamacpp/src/jan_llamacpp/models").glob("*.gguf"))
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class Files(SimpleHTTPRequestHandler):
    """Knows neither ranges nor versions: the least that a server of files can be."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    for name in ("owl.gguf", "parrot.gguf"):
        (tmp_path / "www").mkdir(exist_ok=True)
        shutil.copy(TINY, tmp_path / "www" / name)
    with (tmp_path / "www" / "parrot.gguf").open("ab") as parrot:
        parrot.write(b"another file")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_the_page_shows_a_person_happens(tmp_path: Path, served: str) -> None:
    person = Person(
        tmp_path, {"https://models.example.com": served, HASH: hashlib.sha256(TINY.read_bytes()).hexdigest()}
    )
    [commands] = [text for language, _, text in FENCED.findall(GUIDE) if language == "console"]
    person.type(commands)

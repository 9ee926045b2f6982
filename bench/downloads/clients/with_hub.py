"""huggingface_hub's own downloader, `hf_hub_download`, and then the SHA-256 of the file: it checks the size alone.

    HF_ENDPOINT=http://… python with_hub.py FOLDER NAME COMMIT

Prints what it took as JSON.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.utils.tqdm import disable_progress_bars
from meter import Meter


def main(folder: str, name: str, commit: str) -> None:
    disable_progress_bars()
    with Meter() as meter:
        path = hf_hub_download("hub/bench", name, revision=commit, cache_dir=folder)
        meter.lap()
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(meter.report(path, digest))


if __name__ == "__main__":
    main(*sys.argv[1:])

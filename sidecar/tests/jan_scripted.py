"""The command line as a process, over the house of `house.py`. Run as a script: `python jan_scripted.py chat …`."""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from jan_sidecar.cli.app import App, run
from jan_sidecar.cli.session import start_log

from jan_core import Caller


def opener(app: App, activate: bool) -> AbstractAsyncContextManager[Caller]:
    """As the real one: the log goes to the data folder."""
    start_log(app)
    house: AbstractAsyncContextManager[Caller] = importlib.import_module("tests.house").open_house(app, activate)
    return house


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(run(sys.argv[1:], opener))

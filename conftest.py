"""What every test of the workspace shares: the event loop, and one engine built once."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# No deadlines: how long an example takes says how busy the machine is. In CI the same examples each time, so that a
# failure there is one that can be looked at.
settings.register_profile("workspace", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("workspace")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The byte pump is asyncio's own, so that is the one backend."""
    return "asyncio"


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the CPU engine build in it, compiled here: minutes the first time, then from uv's cache."""
    import anyio
    from jan_llamacpp.engines.builds import known_builds
    from jan_llamacpp.engines.hardware import detect
    from jan_llamacpp.engines.installer import EngineInstaller
    from jan_llamacpp.engines.progress import Progress

    folder = tmp_path_factory.mktemp("engine builds")
    (build,) = [b for b in known_builds(detect()) if b.variant == "cpu"]

    def show(progress: Progress) -> None:
        # Past pytest's capture: a build of minutes must be seen to move.
        print(f"\r{progress.message} {progress.done}/{progress.total}   ", end="", file=sys.__stderr__, flush=True)

    anyio.run(EngineInstaller(folder, wheels=False).ensure, build, show)
    return folder


@pytest.fixture
def data_dir(engines: Path, tmp_path: Path) -> Path:
    """A fresh data folder, with a space and an umlaut in its name, in which the engine is installed already."""
    folder = tmp_path / "Jan's Daten für Tests"
    shutil.copytree(engines, folder / "llamacpp" / "engines", copy_function=os.link)
    return folder

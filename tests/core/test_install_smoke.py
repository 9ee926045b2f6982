"""What a staged extension can do to the process that tries it, and why it is refused then."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from jan_core.host import Host
from jan_core.install.installer import Installer
from jan_core.install.resolve import Places

from ..conftest import gone
from .test_install import House
from .wheelhouse import Wheelhouse, uv_cache, wheelhouse

__all__ = ["uv_cache", "wheelhouse"]

ACTIVATE = """
    import os
    from jan_core import hookimpl
    class Extension:
        @hookimpl
        async def jan_activate(self, ctx):
            {line}
"""


def activating(line: str) -> str:
    """An extension whose activation is one line."""
    return ACTIVATE.replace("{line}", line)


@pytest.fixture
async def house(tmp_path: Path, wheelhouse: Wheelhouse) -> AsyncIterator[House]:
    async with Host(tmp_path / "data", sources=[]) as host:
        yield House(host, wheelhouse.links)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ValueError('not today')", "import: not today (acme_one/plugin.py:1)"),
        ("def (", "import: invalid syntax (acme_one/plugin.py:1)"),
        ("import sys; sys.exit(3)", "import: 3"),
        ("import os; os._exit(0)", "ended with status 0"),
        ("import os; os._exit(7)", "ended with status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("class Other: pass", "has no attribute 'Extension'"),
        ("class Extension:\n        def __init__(self, more): pass", "missing 1 required positional argument"),
        (activating("os._exit(5)"), "ended with status 5"),
        (activating("raise RuntimeError('no database')"), "activate: no database (acme_one/plugin.py:7)"),
        (activating("await ctx.call('nobody.there')"), "activate: no method nobody.there"),
        (
            activating("pass").replace("jan_activate", "jan_deactivate").replace("pass", "1 / 0"),
            "deactivate: division by zero",
        ),
        (
            "import pathlib, sys\nclass Extension: pass\nimport atexit, json\n"
            "request = json.load(open(sys.argv[1]))\n"
            "atexit.register(lambda: pathlib.Path(request['answer']).write_text('garbage'))\n",
            "an answer that cannot be read",
        ),
    ],
)
async def test_what_does_not_come_up_and_go_down_is_refused(
    house: House, wheelhouse: Wheelhouse, code: str, says: str
) -> None:
    wheelhouse.extension("one", code=code)
    refusal = await house.refused("acme-one", "smoke")
    assert says in refusal.message
    assert "Traceback" not in refusal.message
    assert "\n" not in refusal.message


async def test_a_failure_is_also_told_as_data(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one", code="\n\nraise ValueError('not today')\n")
    failure = (await house.refused("acme-one", "smoke")).data["failure"]
    assert (failure["stage"], failure["type"], failure["file"], failure["line"]) == (
        "import",
        "ValueError",
        str(Path("acme_one", "plugin.py")),
        3,
    )


async def test_output_without_end_is_no_reason_and_goes_to_the_log(
    house: House, wheelhouse: Wheelhouse, caplog: pytest.LogCaptureFixture
) -> None:
    wheelhouse.extension("one", code="print('x' * 1_000_000)\nprint('{\"one\": 1}')\nclass Extension: pass\n")
    with caplog.at_level(logging.INFO):
        assert (await house.install("acme-one"))["changed"]
    assert max(len(record.getMessage()) for record in caplog.records) < 300_000


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", "while True: pass"])
async def test_a_hang_ends_after_a_while(tmp_path: Path, wheelhouse: Wheelhouse, code: str) -> None:
    wheelhouse.extension("one", code=code)
    installer = Installer(tmp_path / "data", smoke_limit=0.7)
    places = Places(find_links=(str(wheelhouse.links),))
    with anyio.fail_after(15):
        async with installer.locked(), installer.proposed("acme-one", places) as proposal:
            with pytest.raises(Exception, match=r"did not come up and go down again within 0\.7 s"):
                await installer.smoke(proposal)


@pytest.mark.parametrize("own_session", [False, True])
async def test_what_an_extension_leaves_running_does_not_hold_up_the_trial_and_ends_with_its_group(
    house: House, wheelhouse: Wheelhouse, tmp_path: Path, own_session: bool
) -> None:
    left = tmp_path / "left running"
    wheelhouse.extension(
        "one",
        code="import pathlib, subprocess\n"
        f"left = subprocess.Popen(['sleep', '600'], start_new_session={own_session})\n"
        f"pathlib.Path({str(left)!r}).write_text(str(left.pid))\nclass Extension: pass\n",
    )
    with anyio.fail_after(20):
        await house.install("acme-one")
        pid = int(left.read_text())
        if own_session:
            os.kill(pid, signal.SIGKILL)  # it left the group on purpose: said in `command.py`
        assert await gone([pid])


async def test_the_trial_leaves_no_trace_in_the_data_folder(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    assert not (house.host.data_dir / "one").exists()
    assert sorted(p.name for p in house.overlays[1].folder.iterdir()) == [".in-use", "overlay.json", "site", "wheels"]

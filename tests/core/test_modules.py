"""What an extension's modules may be and do under a generation's own name, and how they are forgotten."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError
from jan_core.loader import folder_source
from jan_core.package import Snapshot, drop
from jan_core.testing import InlineSource

from .project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


USES = """
@method("sample.use")
def use(self, params: Empty) -> list[str]:
    "Use what modules are for."
    import dataclasses, pickle, typing
    from importlib import resources
    from . import things
    assert pickle.loads(pickle.dumps(things.Thing(2))) == things.Thing(2)
    assert typing.get_type_hints(things.Thing)["other"] == things.Thing | None
    places = (__package__, __package__ + ".space.inner", __package__ + ".only_data")
    return [things.FROM_BELOW, *((resources.files(p) / "data ü.txt").read_text("utf-8") for p in places)]
"""

THINGS = """
import abc, dataclasses
from .space.inner.deep import BELOW as FROM_BELOW

class Meta(abc.ABCMeta): ...

@dataclasses.dataclass
class Thing(metaclass=Meta):
    x: int
    other: "Thing | None" = None

class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("no request")

current = Proxy()

if __name__ == "__main__":
    raise SystemExit("run by nobody")
"""


async def test_modules_of_every_kind_work_in_each_generation_and_are_forgotten(
    project: Project, open_host: Any
) -> None:
    for place in (".", "space/inner", "only_data"):  # a package, a folder without __init__.py, one without any code
        (project.code / place).mkdir(parents=True, exist_ok=True)
        (project.code / place / "data ü.txt").write_text(place, "utf-8")
    project.write("things.py", THINGS)
    project.write("space/inner/deep.py", "from ... import words\nBELOW = words.WORD\n")
    project.plugin(USES)
    async with open_host(sources=[folder_source(project.folder)]) as host:
        client = host.client()
        assert await client.call("sample.use") == ["v1", ".", "space/inner", "only_data"]
        project.say("v2")
        await client.call("extensions.reload", {"id": "sample"})
        assert await client.call("sample.use") == ["v2", ".", "space/inner", "only_data"]
        with anyio.fail_after(10):
            await host.lifecycle.generations.settled()
        assert host.lifecycle.find("sample").leaks == []
        assert not [name for name in list(sys.modules) if name.startswith("jan_sample@g1")]


def test_forgetting_one_package_disturbs_no_import_in_another_thread(project: Project) -> None:
    snapshot = Snapshot.take("jan_sample", project.code)
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(100):
                snapshot.load(f"{name}@g{number}", "plugin")
                drop(f"{name}@g{number}")
        except BaseException as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
    assert not [name for name in list(sys.modules) if "@g" in name and name[0] == "t"]


async def test_a_second_extension_of_an_id_stays_out_whatever_is_asked_of_it(project: Project, open_host: Any) -> None:
    second = folder_source(project.folder)
    async with open_host(sources=[InlineSource("sample", object(), []), second]) as host:
        client, id = host.client(), "sample (jan_sample)"
        row = await client.call("extensions.enable", {"id": id})
        assert (row["state"], row["failure"]["type"], row["generation"]) == ("failed", "Duplicate", 0)
        with pytest.raises(RpcError, match="is that of"):
            await client.call("extensions.reload", {"id": id})
        assert not [name for name in list(sys.modules) if name.startswith("jan_sample@")]

"""Installing for real: `uv`, wheels, a host that takes them over. The index is a folder."""

from __future__ import annotations

import asyncio
import os
import sys
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import RpcError
from jan_core.host import Host
from jan_core.install import installer, smoke
from jan_core.install.overlay import Overlay, Overlays
from jan_core.install.packages import scan

from .wheelhouse import Wheelhouse, uv_cache, wheelhouse

__all__ = ["uv_cache", "wheelhouse"]


WITH_PASSWORD = "https://me:secret@example.org/acme_one-1.0-py3-none-any.whl"


class House:
    """A running host, and the methods under test."""

    def __init__(self, host: Host, links: Path) -> None:
        self.host, self.links = host, links
        self.call = host.client("test").call
        self.overlays = Overlays(host.data_dir)
        self.progress: list[str] = []
        self.events: list[dict[str, Any]] = []

    async def install(self, source: object, **more: Any) -> Any:
        params = {"source": str(source), "findLinks": [str(self.links)], **more}
        return await self.call("extensions.install", params, progress=lambda message, *_: self.progress.append(message))

    async def refused(self, source: object, reason: str, **more: Any) -> RpcError:
        """The refusal; nothing may have changed by it."""
        before = {path: path.stat().st_mtime_ns for path in self.files()}
        with pytest.raises(RpcError) as caught:
            await self.install(source, **more)
        assert caught.value.type == "install_failed", caught.value
        assert caught.value.data["reason"] == reason, caught.value
        assert {path: path.stat().st_mtime_ns for path in self.files()} == before
        return caught.value

    def files(self) -> list[Path]:
        root = self.overlays.root
        return sorted(p for p in root.rglob("*") if p.is_file() and p.name not in (".lock", ".in-use"))

    def site(self) -> set[str]:
        """The packages in the overlay that serves."""
        record = self.overlays[self.overlays.current()].record()
        return {f"{p.name} {p.version}" for p in record.packages}


@pytest.fixture(scope="session")
def tried() -> set[Any]:
    """What came through its trial already: byte for byte the same set is not tried again for another test."""
    return set()


@pytest.fixture
async def house(
    tmp_path: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, tried: set[Any]
) -> AsyncIterator[House]:
    async def smoke_load(stage: Overlay, ids: Sequence[str], *more: Any) -> None:
        key = (*ids, *sorted(package.record for package in scan(stage.site).values()))
        if key not in tried:
            await smoke.smoke_load(stage, ids, *more)
            tried.add(key)

    monkeypatch.setattr(installer, "smoke_load", smoke_load)
    async with Host(tmp_path / "Jan's Daten", sources=[]) as host:
        house = House(host, wheelhouse.links)
        with host.bus.subscribe(lambda event: house.events.append(event.data) if "extensions" in event.name else None):
            yield house


async def test_what_is_installed_answers_at_once_and_brings_only_what_is_missing(
    house: House, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.library("deep")
    wheelhouse.library("lib", needs=["acme-deep", "msgspec>=0.20"])
    wheelhouse.extension("one", needs=["jan-core", "anyio>=4", "acme-lib>=1"])
    done = await house.install("acme-one")
    assert [(p["name"], p["change"]) for p in done["packages"]] == [
        ("acme-deep", "added"),
        ("acme-lib", "added"),
        ("acme-one", "added"),
    ]
    assert [(e["id"], e["state"]) for e in done["extensions"]] == [("one", "discovered")]
    assert await house.call("one.version") == "1.0"
    assert [(e["id"], e["state"]) for e in house.events] == [("one", "discovered"), ("one", "active")]
    assert sys.path[-1] == str(house.overlays[done["overlay"]].site)


async def test_progress_is_told_in_words(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    assert house.progress == ["resolving acme-one", "fetching acme-one", "trying one in a process of its own"]


async def test_an_extension_that_starts_with_the_application_is_started(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one", activation="startup")
    done = await house.install("acme-one")
    assert [e["state"] for e in done["extensions"]] == ["active"]
    assert (house.host.data_dir / "one" / "was here").exists()


async def test_installing_what_is_there_already_changes_nothing(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    first = await house.install("acme-one")
    assert await house.install("acme-one") == {"overlay": first["overlay"], "changed": False}


async def test_inspecting_says_what_would_come_and_leaves_nothing(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one", permissions=["network"], code="raise SystemExit('it was run')")
    offer = await house.call("extensions.inspect", {"source": "acme-one", "findLinks": [str(house.links)]})
    assert offer["extensions"] == [
        {
            "id": "one",
            "version": "1.0",
            "package": "acme-one",
            "permissions": ["network"],
            "methods": ["one."],
            "activation": "on-method",
            "requiresCore": ">=1.0,<2",
            "isolation": "none",
        }
    ]
    assert [p["name"] for p in offer["packages"]] == ["acme-one"]
    assert house.files() == []


async def test_what_an_extension_declares_needs_a_person_s_consent_once(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one", permissions=["network", "files"])
    refusal = await house.refused("acme-one", "consent", permissions=["files"])
    assert refusal.data["permissions"] == ["network"]
    await house.install("acme-one", permissions=["files", "network"])
    wheelhouse.extension("one", "1.1", permissions=["network"])
    assert (await house.install("acme-one"))["changed"]
    wheelhouse.extension("one", "1.2", permissions=["network", "processes"])
    assert (await house.refused("acme-one", "consent")).data["permissions"] == ["processes"]


async def test_a_conflict_with_the_application_is_refused_and_named(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("good")
    await house.install("acme-good")
    for requirement in ("acme-bad", wheelhouse.extension("bad", needs=["jan-core", "anyio<4"])):
        refusal = await house.refused(requirement, "conflict")
        assert "anyio<4" in refusal.message
        assert "go together with the application" in refusal.message
    wheelhouse.extension("future", needs=["jan-core>=9"])
    assert "jan-core>=9" in (await house.refused("acme-future", "conflict")).message


async def test_a_conflict_between_two_extensions_is_refused_and_the_first_goes_on(
    house: House, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.library("lib")
    wheelhouse.library("lib", "2.0")
    wheelhouse.extension("one", needs=["acme-lib<2"])
    wheelhouse.extension("two", needs=["acme-lib>=2"])
    await house.install("acme-one")
    assert "acme-lib" in (await house.refused("acme-two", "conflict")).message
    assert await house.call("one.version") == "1.0"


async def test_a_shared_dependency_moves_when_both_allow_it_and_stays_otherwise(
    house: House, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.library("lib")
    wheelhouse.extension("one", needs=["acme-lib"])
    await house.install("acme-one")
    wheelhouse.library("lib", "2.0")
    wheelhouse.extension("two", needs=["acme-lib"])
    await house.install("acme-two")
    assert house.site() == {"acme-lib 1.0", "acme-one 1.0", "acme-two 1.0"}
    wheelhouse.extension("three", needs=["acme-lib>=2"])
    await house.install("acme-three")
    assert "acme-lib 2.0" in house.site()
    assert [await house.call(f"{name}.version") for name in ("one", "two", "three")] == ["1.0"] * 3


async def test_extras_bring_what_they_name(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.library("lib")
    root = wheelhouse.project("one")
    toml = root / "pyproject.toml"
    toml.write_text(
        toml.read_text().replace(
            "\n[build-system]", '\n[project.optional-dependencies]\nx = ["acme-lib"]\n[build-system]'
        )
    )
    wheelhouse._wheel(root)
    await house.install("acme-one[x]>=1")
    assert house.site() == {"acme-lib 1.0", "acme-one 1.0"}


@pytest.mark.parametrize(
    ("source", "reason", "says"),
    [
        ("acme-nobody", "network", "offline"),
        ("jan-core", "conflict", "part of this installation"),
        ("acme-lib", "refused", "no extension"),
        ("acme-alien", "refused", "requires host API >=9"),
        ("acme-painted", "refused", "acme_painted/jan-extension.toml: Object contains unknown field `colour`"),
        ("acme-thief", "conflict", "that of this installation already"),
        ("acme-squatter", "conflict", "that of the host already"),
        ("acme-reacher", "conflict", "reaches into 'settings.'"),
    ],
)
async def test_what_cannot_be_installed_is_refused_with_its_reason(
    house: House, wheelhouse: Wheelhouse, source: str, reason: str, says: str
) -> None:
    wheelhouse.library("lib")
    wheelhouse.extension("alien", **{"requires-core": ">=9"})
    wheelhouse.extension("painted", colour="red")
    wheelhouse.extension("thief", id="assistant")
    wheelhouse.extension("squatter", id="logs")
    wheelhouse.extension("reacher", methods=["settings."])
    refusal = await house.refused(source, reason)
    assert says in refusal.message
    assert ".stage-" not in refusal.message  # where it was looked at


async def test_an_id_that_another_package_has_is_refused(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    wheelhouse.extension("two", id="one", methods=["other."])
    assert "that of acme-one already" in (await house.refused("acme-two", "conflict")).message


async def test_a_name_that_does_not_exist_is_told_apart_from_no_network(
    house: House, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    assert "acme-nobody was not found" in (await house.refused("acme-nobody", "not_found")).message
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    assert "could not be reached" in (await house.refused("acme-nobody", "network")).message


@pytest.mark.parametrize(
    "source",
    [
        "",
        "-e .",
        "acme-one; python_version>'3'",
        "acme-one\n--pre",
        "./acme",
        "git+https://x/y",
        "https://x/y",
        WITH_PASSWORD,
    ],
)
async def test_a_source_that_is_none_is_bad_params(house: House, source: str) -> None:
    with pytest.raises(RpcError) as caught:
        await house.install(source)
    assert (caught.value.type, caught.value.data["path"]) == ("invalid_params", "$.source")


@pytest.mark.parametrize(
    "more", [{"findLinks": ["/a\0b"]}, {"findLinks": ["links"]}, {"indexUrl": "https://x/\0"}, {"indexUrl": "ftp://x"}]
)
async def test_places_that_are_none_are_bad_params(house: House, more: dict[str, Any]) -> None:
    with pytest.raises(RpcError) as caught:
        await house.call("extensions.inspect", {"source": "acme-one", **more})
    assert (caught.value.type, caught.value.data["path"]) == ("invalid_params", f"$.{next(iter(more))}")


async def test_what_is_no_file_is_no_wheel(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "acme_one-1.0-py3-none-any.whl")  # nor is a device without an end
    with pytest.raises(RpcError, match="neither a wheel nor a project"):
        await house.install(tmp_path / "acme_one-1.0-py3-none-any.whl")


@pytest.mark.parametrize("as_address", [False, True])
async def test_a_wheel_file_is_kept_so_that_the_next_installation_needs_it_no_more(
    house: House, wheelhouse: Wheelhouse, as_address: bool
) -> None:
    wheel = wheelhouse.extension("one")
    await house.install(wheel.as_uri() if as_address else wheel)
    wheel.unlink()
    wheelhouse.library("lib")
    wheelhouse.extension("two", needs=["acme-lib"])
    await house.install("acme-two")
    await house.call("extensions.repair")
    assert [await house.call(f"{name}.version") for name in ("one", "two")] == ["1.0", "1.0"]


async def test_a_project_s_folder_and_a_source_archive_are_built(
    house: House, wheelhouse: Wheelhouse, tmp_path: Path
) -> None:
    root = wheelhouse.project("one", backend=True)
    await house.install(root)
    assert await house.call("one.version") == "1.0"
    wheelhouse.project("two", backend=True)
    archive = tmp_path / "acme_two-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(wheelhouse.folder / "two-1.0", "acme_two-1.0")
    await house.install(archive)
    assert await house.call("two.version") == "1.0"


async def test_a_project_that_cannot_be_built_says_why(house: House, wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    root = wheelhouse.project("one", backend=True)
    (root / "backend.py").write_text("def build_wheel(*a, **k): raise RuntimeError('no luck today')\n")
    assert "could not be built" in (await house.refused(root, "build")).message
    assert "neither" in (await house.refused(house.host.data_dir, "build")).message
    assert "is not there" in (await house.refused(tmp_path / "nothing", "not_found")).message


async def test_a_wheel_that_is_none_is_refused(house: House, tmp_path: Path) -> None:
    wheel = tmp_path / "acme_one-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK nonsense")
    assert "acme_one-1.0" in (await house.refused(wheel, "refused")).message


async def test_a_package_that_has_only_source_on_an_index_is_not_built(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.project("one", backend=True)
    with tarfile.open(wheelhouse.links / "acme_one-1.0.tar.gz", "w:gz") as tar:
        tar.add(wheelhouse.folder / "one-1.0", "acme_one-1.0")
        (wheelhouse.folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme-one\nVersion: 1.0\n")
        tar.add(wheelhouse.folder / "PKG-INFO", "acme_one-1.0/PKG-INFO")
    assert "no wheel for this machine" in (await house.refused("acme-one", "build")).message


async def test_an_update_is_served_without_a_restart(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    assert await house.call("one.version") == "1.0"
    wheelhouse.extension("one", "1.1")
    done = await house.install("acme-one")
    assert done["packages"] == [{"name": "acme-one", "change": "updated", "version": "1.1", "before": "1.0"}]
    assert await house.call("one.version") == "1.1"


async def test_a_dependency_in_use_that_changes_waits_for_a_restart(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.library("lib")
    wheelhouse.extension("one", needs=["acme-lib"], uses="import acme_lib; return acme_lib.VERSION")
    await house.install("acme-one")
    assert await house.call("one.version") == "1.0"
    wheelhouse.library("lib", "2.0")
    wheelhouse.extension("two", needs=["acme-lib>=2"])
    done = await house.install("acme-two")
    assert done["restartRequired"]
    assert done["reason"] == "acme-lib 1.0 is in use, and 2.0 is installed now"
    assert await house.call("one.version") == "1.0"
    with pytest.raises(RpcError):
        await house.call("two.version")
    undone = await house.call("extensions.undo")  # what was never taken over is no trouble to go back from
    assert (undone["overlay"], undone.get("restartRequired")) == (1, None)
    assert await house.call("one.version") == "1.0"


async def test_what_was_imported_before_an_installation_in_between_is_still_in_use(
    house: House, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.library("lib")
    wheelhouse.extension("one", needs=["acme-lib"], uses="import acme_lib; return acme_lib.VERSION")
    wheelhouse.extension("two")
    await house.install("acme-one")
    assert await house.call("one.version") == "1.0"
    assert "restartRequired" not in await house.install("acme-two")
    assert "restartRequired" not in await house.call("extensions.uninstall", {"id": "one"})
    wheelhouse.library("lib", "2.0")
    wheelhouse.extension("three", needs=["acme-lib>=2"])
    assert (await house.install("acme-three"))["reason"].startswith("acme-lib 1.0 is in use")


async def test_an_extension_is_tried_again_when_its_dependency_changes(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.library("lib")
    code = "import acme_lib\nassert acme_lib.VERSION == '1.0', 'of another time'\nclass Extension: pass\n"
    wheelhouse.extension("old", needs=["acme-lib"], code=code)
    await house.install("acme-old")
    wheelhouse.library("lib", "2.0")
    wheelhouse.extension("new", needs=["acme-lib>=2"])
    assert "old was tried" in (await house.refused("acme-new", "smoke")).message


async def test_a_published_version_takes_the_place_of_a_file_s(house: House, wheelhouse: Wheelhouse) -> None:
    mine = wheelhouse.extension("one", uses="return 'mine'")
    await house.install(mine.rename(wheelhouse.folder / mine.name))
    assert await house.call("one.version") == "mine"
    wheelhouse.extension("one")
    await house.install("acme-one==1.0")
    assert await house.call("one.version") == "1.0"


async def test_an_extension_that_was_switched_off_stays_off_when_it_is_updated(
    house: House, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    await house.call("extensions.disable", {"id": "one"})
    wheelhouse.extension("one", "1.1")
    done = await house.install("acme-one")
    assert [(e["state"], e["version"]) for e in done["extensions"]] == [("disabled", "1.1")]


async def test_uninstalling_takes_what_only_it_needed_and_leaves_its_data(
    house: House, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheelhouse.library("shared")
    wheelhouse.library("own")
    wheelhouse.extension("one", needs=["acme-shared", "acme-own"])
    wheelhouse.extension("two", needs=["acme-shared"])
    await house.install("acme-one")
    await house.install("acme-two")
    await house.call("one.version")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))  # nothing to fetch from, no network: not needed
    for wheel in house.links.iterdir():
        wheel.unlink()
    done = await house.call("extensions.uninstall", {"id": "one"})
    assert [(p["name"], p["change"]) for p in done["packages"]] == [("acme-one", "removed"), ("acme-own", "removed")]
    assert house.site() == {"acme-shared 1.0", "acme-two 1.0"}
    assert [e["id"] for e in (await house.call("extensions.list"))["extensions"]] == ["two"]
    assert (house.host.data_dir / "one" / "was here").exists()
    await house.call("two.version")
    await house.call("extensions.uninstall", {"id": "two", "purge": True})
    assert not (house.host.data_dir / "two").exists()
    assert house.site() == set()


async def test_uninstalling_what_is_not_ours_to_remove_says_so(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("base")
    wheelhouse.extension("top", needs=["acme-base"])
    await house.install("acme-top")
    for id, kind, says in (
        ("nobody", "extension_not_found", "no extension 'nobody'"),
        ("assistant", "install_failed", "part of this installation"),
        ("base", "install_failed", "needed by acme-top"),
    ):
        with pytest.raises(RpcError, match=says) as caught:
            await house.call("extensions.uninstall", {"id": id})
        assert caught.value.type == kind


async def test_undo_brings_back_what_was_before_once(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    wheelhouse.extension("two")
    await house.install("acme-one")
    await house.install("acme-two")
    undone = await house.call("extensions.undo")
    assert [(p["name"], p["change"]) for p in undone["packages"]] == [("acme-two", "removed")]
    assert await house.call("one.version") == "1.0"
    with pytest.raises(RpcError, match="no method"):
        await house.call("two.version")
    await house.call("extensions.undo")
    assert house.overlays.current() == 0
    with pytest.raises(RpcError, match="nothing to undo"):
        await house.call("extensions.undo")


async def test_repair_fetches_damaged_files_anew(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await house.install("acme-one")
    [plugin] = house.overlays[1].site.glob("acme_one/plugin.py")
    plugin.write_text("nonsense(")  # in uv's cache too, where it is a hard link
    findings = (await house.call("system.doctor"))["findings"]
    assert [
        (f["status"], "plugin.py is not as it was packaged" in f["message"])
        for f in findings
        if "installed" in f["check"]
    ] == [("fail", True)]
    await house.call("extensions.repair")
    findings = (await house.call("system.doctor"))["findings"]
    assert [f["status"] for f in findings if "installed" in f["check"]] == ["ok"]
    assert await house.call("one.version") == "1.0"


async def test_an_extension_in_a_process_of_its_own_finds_its_packages(house: House, wheelhouse: Wheelhouse) -> None:
    wheelhouse.library("lib", "2.5")
    wheelhouse.extension(
        "one", needs=["acme-lib"], uses="import acme_lib; return acme_lib.VERSION", isolation="process"
    )
    await house.install("acme-one")
    assert await house.call("one.version") == "2.5"
    assert "acme_lib" not in sys.modules
    await house.call("extensions.uninstall", {"id": "one"})


async def test_two_installations_at_once_are_one_after_the_other(
    house: House, wheelhouse: Wheelhouse, tmp_path: Path
) -> None:
    wheelhouse.extension("one")
    wheelhouse.extension("two")
    await asyncio.gather(house.install("acme-one"), house.install("acme-two"))
    assert house.site() == {"acme-one 1.0", "acme-two 1.0"}
    assert "another installation is under way; waiting for its end" in house.progress


@pytest.mark.parametrize("phase", ["resolving", "fetching", "trying"])
@pytest.mark.parametrize("how", ["scope", "task"])
async def test_an_installation_that_is_cancelled_leaves_nothing(
    house: House, wheelhouse: Wheelhouse, phase: str, how: str
) -> None:
    wheelhouse.extension("one", code="import time; time.sleep(60)" if phase == "trying" else "pass")
    params = {"source": "acme-one", "findLinks": [str(house.links)]}
    scope, reached = anyio.CancelScope(), asyncio.Event()

    def cancel(message: str, *_: object) -> None:
        if message.startswith(phase):
            reached.set()
            scope.cancel() if how == "scope" else task.cancel()

    async def install() -> None:
        with scope:
            await house.call("extensions.install", params, progress=cancel)

    with anyio.fail_after(20):
        task = asyncio.create_task(install())
        await asyncio.wait([task])
    assert reached.is_set()
    assert scope.cancelled_caught if how == "scope" else task.cancelled()
    assert [p.name for p in house.overlays.root.iterdir()] == [".lock"]
    wheelhouse.extension("two")
    await house.install("acme-two")


async def test_without_uv_the_refusal_says_what_to_do(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "uv", None)
    assert "install the package uv" in (await house.refused("acme-one", "uv")).message

"""Overlays on disk: what a start does with them, and what it does with damaged ones."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jan_core.errors import InstallFailed, InvalidParams
from jan_core.host import Host
from jan_core.install import lock
from jan_core.install.installer import Installer
from jan_core.install.overlay import Damaged, Overlays, activate
from jan_core.install.packages import Installed, contributed, scan
from jan_core.install.report import findings
from jan_core.install.request import requirement
from jan_core.install.resolve import Places, Uv
from jan_core.manifest import ManifestError

from .wheelhouse import Wheelhouse, uv_cache, wheelhouse

__all__ = ["uv_cache", "wheelhouse"]


async def install(data: Path, wheelhouse: Wheelhouse, source: str) -> int:
    """Install without a host; returns the overlay's number."""
    installer = Installer(data)
    places = Places(find_links=(str(wheelhouse.links),))
    async with installer.locked(), installer.proposed(source, places) as proposal:
        await installer.commit(proposal)
    return proposal.record.number


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def with_one(data: Path, wheelhouse: Wheelhouse, uv_cache: Path) -> Path:
    """The data folder with acme-one installed: installed once, and copied for each test."""
    wheelhouse.extension("one")
    whole = uv_cache.with_name("data with one")
    if not whole.exists():
        await install(whole, wheelhouse, "acme-one")
    return Path(shutil.copytree(whole, data))


def test_a_start_without_overlays_costs_nothing(data: Path) -> None:
    activate(data)
    began = time.perf_counter()
    for _ in range(100):
        assert activate(data) == []
    assert (time.perf_counter() - began) / 100 < 0.001


async def test_what_is_installed_is_found_by_the_next_start(data: Path, wheelhouse: Wheelhouse) -> None:
    wheelhouse.extension("one")
    await install(data, wheelhouse, "acme-one")
    code = """
        import anyio, sys, pathlib
        from jan_core.host import Host
        from jan_core.install.overlay import activate
        async def main():
            data = pathlib.Path(sys.argv[1])
            assert activate(data) == [sys.path[-1]]
            assert activate(data) == [sys.path[-1]] != [sys.path[-2]]
            async with Host(data) as host:
                print(await host.client().call("one.version"))
        anyio.run(main)
    """
    done = await anyio.run_process([sys.executable, "-c", textwrap.dedent(code), data], check=False)
    assert (done.stdout, done.returncode) == (b"1.0\n", 0), done.stderr


async def test_an_overlay_never_stands_in_for_the_product_and_its_pth_files_are_not_run(
    data: Path, wheelhouse: Wheelhouse
) -> None:
    wheelhouse.library("evil", **{"msgspec.py": "raise SystemExit('shadowed')", "evil_pth": "import acme_evil.ran"})
    wheelhouse.extension("one", needs=["acme-evil"])
    number = await install(data, wheelhouse, "acme-one")
    site = Overlays(data)[number].site
    assert (site / "msgspec.py").exists()
    assert (site / "evil.pth").exists()
    code = "import sys, pathlib, jan_core.install.overlay as o; o.activate(pathlib.Path(sys.argv[1])); import msgspec"
    await anyio.run_process([sys.executable, "-W", "error", "-c", code, data])
    activate(data)
    assert not any(name.startswith("acme_") for name in list(sys.modules))


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "current").write_text("nonsense"),
        lambda root: (root / "current").write_text("7"),
        lambda root: (root / "current").write_text("-1"),
        lambda root: (root / "current").write_bytes(b"\xff\xfe"),
        lambda root: (root / "current").write_text("9" * 400),
        lambda root: (root / "1" / "overlay.json").write_text("{"),
        lambda root: (root / "1" / "overlay.json").write_text("[" * 100_000),
        lambda root: (root / "1" / "overlay.json").unlink(),
        lambda root: (root / "1" / "site").rename(root / "1" / "elsewhere"),
        lambda root: (root / "1" / "overlay.json").write_text(
            (root / "1" / "overlay.json").read_text().replace("cpython-3", "cpython-9")
        ),
    ],
)
async def test_a_damaged_overlay_is_left_out_said_and_mended_by_the_next_installation(
    with_one: Path, wheelhouse: Wheelhouse, damage: object
) -> None:
    data = with_one
    before = sys.path[:]
    damage(Overlays(data).root)  # type: ignore[operator]
    assert activate(data) == []
    assert sys.path == before
    async with Host(data, sources=[]) as host:
        found = (await host.client().call("system.doctor"))["findings"]
        assert [f["status"] for f in found if f["check"] == "installed extensions"] == ["fail"]
    wheelhouse.extension("two")
    number = await install(data, wheelhouse, "acme-two")
    assert "acme-two" in scan(Overlays(data)[number].site)
    assert [status for status, _, _ in findings(data)] == ["ok"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda site: (site / "acme_one" / "plugin.py").write_text("other"), "plugin.py is not as it was packaged"),
        (lambda site: (site / "acme_one" / "plugin.py").unlink(), "plugin.py: No such file"),
        (lambda site: next(site.glob("*.dist-info/RECORD")).write_text(""), "is not what was installed"),
        (lambda site: next(site.glob("*.dist-info/METADATA")).unlink(), "is not what was installed"),
    ],
)
async def test_the_doctor_compares_every_file(with_one: Path, damage: object, says: str) -> None:
    damage(Overlays(with_one)[1].site)  # type: ignore[operator]
    [(status, message, advice)] = findings(with_one)
    assert status == "fail"
    assert says in message
    assert "jan ext repair" in advice


async def test_an_update_of_the_application_is_noticed(with_one: Path) -> None:
    record = Overlays(with_one)[1].folder / "overlay.json"
    record.write_text(record.read_text().replace('"anyio": "', '"anyio": "0.'))
    assert [(status, "updated since (anyio)" in message) for status, message, _ in findings(with_one)] == [
        ("warn", True)
    ]


async def test_only_the_overlay_before_is_kept_and_what_a_process_uses(data: Path, wheelhouse: Wheelhouse) -> None:
    overlays = Overlays(data)
    for name in ("one", "two", "three"):
        wheelhouse.extension(name)
        await install(data, wheelhouse, f"acme-{name}")
    assert overlays.numbers() == [2, 3]
    user = lock.share(overlays[2].in_use)
    try:
        for name in ("four", "five"):
            wheelhouse.extension(name)
            await install(data, wheelhouse, f"acme-{name}")
        assert overlays.numbers() == [2, 4, 5]
    finally:
        os.close(user)


async def test_files_that_are_the_same_are_stored_once(data: Path, wheelhouse: Wheelhouse) -> None:
    for name in ("one", "two"):
        wheelhouse.extension(name)
        await install(data, wheelhouse, f"acme-{name}")
    first, second = (Overlays(data)[n].site / "acme_one" / "plugin.py" for n in (1, 2))
    assert first.samefile(second)


async def test_a_package_with_files_outside_of_its_folder_is_refused(with_one: Path) -> None:
    site = Overlays(with_one)[1].site
    [record] = site.glob("acme_one*/RECORD")
    record.write_text(record.read_text() + "../../../escaped.txt,,\n")
    package = scan(site)["acme-one"]
    for touch in (package.verify, package.sync, lambda: package.link_into(with_one)):
        with pytest.raises(Damaged, match="outside of its folder"):
            touch()


async def test_a_record_is_read_in_every_form_that_is_allowed_and_refused_in_others(with_one: Path) -> None:
    site = Overlays(with_one)[1].site
    [record] = site.glob("acme_one*/RECORD")
    whole = record.read_text()
    (site / "more.py").write_text("")
    scan(site)["acme-one"].verify()
    for kind, fits in (("sha384", True), ("sha512", True), ("sha256", False), ("md5", False), ("nothing", False)):
        digest = base64.urlsafe_b64encode(hashlib.new("sha512" if kind == "sha512" else "sha384").digest()).decode()
        record.write_text(f"{whole}more.py,{kind}={digest.rstrip('=')},0\n")
        with nullcontext() if fits else pytest.raises(Damaged):
            scan(site)["acme-one"].verify()
    for row in ("x" * 200_000 + ",,", "a\0b,sha256=x,1"):
        record.write_text(f"{whole}{row}\n")
        with pytest.raises(Damaged):
            scan(site)["acme-one"].verify()
        assert [status for status, _, _ in findings(with_one)] == ["fail"]


async def test_packages_are_files_even_where_uv_is_told_to_link(
    data: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    wheelhouse.extension("one")
    site = Overlays(data)[await install(data, wheelhouse, "acme-one")].site
    assert not [path for path in site.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("entry", ["", ":x", "..:x", "/etc:x", "nobody.plugin:x", "a b:x"])
def test_an_entry_point_outside_of_its_package_is_refused(tmp_path: Path, entry: str) -> None:
    (tmp_path / "pyproject.toml").write_text("")  # what a search above the folder of packages would find
    site = tmp_path / "site"
    (site / "a b").mkdir(parents=True)
    with pytest.raises(ManifestError, match="has no package"):
        contributed(Installed("acme-one", "1.0", site, site / "info", (("one", entry),)), "1.0")


@given(st.text() | st.from_regex(r"[a-z\[\]<>=!~.,; \n-]{1,30}", fullmatch=True))
async def test_whatever_a_source_says_uv_gets_one_requirement_or_nothing(source: str) -> None:
    if Path(source).is_absolute():
        return
    stage = Overlays(Path("nowhere"))[1]
    try:
        wanted = await requirement(source, Uv(Path("nowhere"), Places(), print), stage)
    except (InvalidParams, InstallFailed):
        return
    assert wanted.spec.splitlines() == [wanted.spec]
    assert wanted.spec[0].isalnum()
    assert not set(wanted.spec) & set(";#@")

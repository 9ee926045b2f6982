"""A build's id names its folder, and any extension may propose one."""

from __future__ import annotations

from pathlib import Path

import pytest
from jan_llamacpp.engines.errors import EngineInstallFailed
from jan_llamacpp.engines.installer import EngineInstaller

from jan_core.types import EngineBuild


@pytest.mark.parametrize("id", ["../victim", "/victim", ".hidden", "", "a/b"])
async def test_an_id_that_leads_elsewhere_is_refused_and_touches_nothing(tmp_path: Path, id: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("x", "utf-8")
    build = EngineBuild(id=id, variant="cpu", version="0.3.36")
    with pytest.raises(EngineInstallFailed) as caught:
        await EngineInstaller(tmp_path / "engines", offline=True).ensure(build, lambda progress: None)
    assert caught.value.data["reason"] == "refused"
    assert [p.name for p in victim.iterdir()] == ["kept"]

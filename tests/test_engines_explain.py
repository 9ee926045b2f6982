"""`jan engines explain` as a person sees it: a real process, with a stand-in for nvidia-smi on the PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from .conftest import Jan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is a shell script, the files Linux's")

REPORT = """\
<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v11.dtd">
<nvidia_smi_log>
\t<driver_version>470.57.02</driver_version>
\t<cuda_version>11.4</cuda_version>
\t<attached_gpus>1</attached_gpus>
\t<gpu id="00000000:01:00.0">
\t\t<product_name>NVIDIA GeForce GTX 780</product_name>
\t\t<uuid>GPU-27b94a00-ed54-5c24-b1fd-1054085de32a</uuid>
\t\t<pci>
\t\t\t<pci_device_id>100410DE</pci_device_id>
\t\t</pci>
\t\t<fb_memory_usage>
\t\t\t<total>3071 MiB</total>
\t\t\t<used>120 MiB</used>
\t\t\t<free>2951 MiB</free>
\t\t</fb_memory_usage>
\t</gpu>
</nvidia_smi_log>
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver 470 with a GTX 780, for which there is no wheel: it refuses to tell the compute capability."""
    if Path("/usr/bin/nvidia-smi").exists():
        pytest.skip("this machine has an nvidia-smi of its own, which is found first")
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "report.xml").write_text(REPORT)
    script = folder / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\n[ "$1" = -q ] && exec cat "$(dirname "$0")/report.xml"\n'
        "echo 'Field \"compute_cap\" is not a valid field to query.'\nexit 2\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_table_tells_every_build_with_its_verdict_and_reason(jan: Jan, nvidia_smi: None) -> None:
    done = jan("engines", "explain")
    assert done.returncode == 0
    first, *rows = done.stdout.splitlines()
    assert " is used, chosen by llamacpp: " in first
    table = {row.split("\t")[0].partition("-")[0]: row.split("\t")[1:] for row in rows}
    assert set(table) == {"cpu", "cuda13", "cuda12", "cuda11", "metal", "rocm", "vulkan"}
    assert table["cuda12"] == [
        "refused",
        "false",
        "the driver 470.57.02 offers CUDA 11.4; this build needs 525.60.13 or newer: update the driver",
    ]
    assert table["metal"] == ["refused", "false", "Metal exists on macOS only"]
    assert table["cuda11"][0] in ("usable", "chosen")


def test_an_idle_gpu_and_a_setting_that_cannot_be_followed_are_told_on_standard_error(
    jan: Jan, nvidia_smi: None
) -> None:
    done = jan("engines", "explain")
    assert "warning: The NVIDIA GeForce GTX 780 is not used. cuda11-" in done.stderr
    assert jan("settings", "set", "llamacpp.engine_build", "cuda12").returncode == 0
    done = jan("engines", "explain")
    assert "warning: The setting engine_build is 'cuda12', but " in done.stderr
    assert "warning" not in done.stdout

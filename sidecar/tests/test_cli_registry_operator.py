"""`jan registry init`, `publish` and the others as an operator types them: real processes, one folder."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jan_sidecar.cli.app import run

from .terminal import Terminal

JAN = str(Path(sys.executable).with_name("jan"))
SHA256 = "ab" * 32
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAN_")}
    return {**clean, "JAN_DATA_DIR": str(tmp_path / "data"), "NO_COLOR": "1", **more}


@pytest.fixture
def operator(tmp_path: Path) -> Run:
    """Run `jan registry …` in the operator's folder, as from a script; `init` was run already."""
    folder = tmp_path / "registry"

    def type_(*arguments: str, cwd: Path = folder, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [JAN, "registry", *arguments],
            cwd=cwd,
            env=environment(tmp_path, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    made = type_("init", str(folder), "--name", "Example", "--no-passphrase", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "15 private keys" in made.stderr
    return type_


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_goes_from_a_command_to_what_clients_see(operator: Run) -> None:
    url = "https://files.example/tiny-Q4_0.gguf"
    given = ("--name", "Tiny", "--url", url, "--size", "1000", "--sha256", SHA256, "--tag", "small", "--json")
    assert said(operator("add", "owner/tiny", *given))["files"] == ["models/owner--tiny.toml"]
    assert operator("feature", "default", "owner/tiny", "--where", "locale=pt").returncode == 0
    assert operator("flag", "registry.shadow.enabled", "false").returncode == 0
    assert operator("flag", "registry.shadow.enabled", "true", "--percent", "5").returncode == 0
    preview = said(operator("publish", "--dry-run", "--json"))["preview"]
    assert preview["featured"][0]["who"] == "locale=pt"
    done = operator("publish")
    assert done.returncode == 0
    assert "  models: 1 new: owner/tiny" in done.stdout
    assert "  registry.shadow.enabled: true for 5 %; false for everybody else" in done.stdout
    assert "version 1 is published" in done.stderr
    status = said(operator("status", "--folder", ".", "--json"))
    assert (status["version"], status["changes"]) == (1, [])
    roles = operator("status", "--folder", ".").stdout
    assert [line.split("\t")[0] for line in roles.splitlines()][-1] == "timestamp"


def test_what_is_wrong_is_said_line_by_line_and_ends_with_status_1(operator: Run, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    (folder / "models/a.toml").write_text('id = "A"\nname = "A"\n')
    (folder / "models/b.toml").write_text("id = \n")
    done = operator("publish", "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "models/a.toml:1: id: must be 1 to 128 lower-case letters, digits and . _ : @ + / -",
        "models/b.toml:1: is not TOML: Invalid value",
        "jan: 2 problems; nothing was changed",
    ]
    assert "problem: models/b.toml:1" in operator("status", "--folder", ".").stderr


def test_a_pipe_in_the_folder_is_named_and_nothing_waits_for_it(operator: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "registry/models/p.toml")
    for command in (
        ["publish"],
        ["publish", "--dry-run"],
        ["import", "models/p.toml"],
        ["add", "a", "--file", "models/p.toml"],
    ):
        done = operator(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "models/p.toml" in done.stderr
        assert "it is not a plain file" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_hashing_a_huge_file_is_called_off_at_once(operator: Run, tmp_path: Path, number: signal.Signals) -> None:
    texts = [struct.pack("<Q", len(it)) + it for it in (b"general.architecture", b"llama", b"weights")]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + texts[0] + struct.pack("<I", 8) + texts[1] + texts[2]
    with (tmp_path / "huge.gguf").open("wb") as file:
        file.write(head + struct.pack("<IQQIQ", 2, 2, 3, 0, 0))
        file.truncate(1 << 38)  # takes minutes to hash, and no room
    command = [JAN, "registry", "add", "huge", "--file", str(tmp_path / "huge.gguf")]
    with subprocess.Popen(
        command, cwd=tmp_path / "registry", env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while "hashing" not in said:
            said += (letter := process.stderr.read(1))
            assert letter, said
        process.send_signal(number)
        assert process.wait(10) == 130
        assert "jan:" not in process.stderr.read()
    assert not (tmp_path / "registry/models/huge.toml").exists()


def test_who_revokes_a_model_that_nobody_knows_is_told_at_once(operator: Run, tmp_path: Path) -> None:
    done = operator("revoke", "nosuch/model", "--reason", "Bad.")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "jan: there is no model nosuch/model in the folder, nor is one published",
        "     nothing was changed; if it is meant, give --unknown",
    ]
    assert operator("revoke", "nosuch/model", "--reason", "Bad.", "--unknown").returncode == 0
    assert (tmp_path / "registry/revocations/nosuch--model.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["publish", "--folder", "nowhere"], "does not exist"),
        (["feature", "default", "--where", "os=linux", "--everybody"], "--where or --everybody"),
        (["experiment", "start", "x", "--branch", "a=b:c"], "must be a whole number"),
        (["add", "x", "--sha256", "abc"], "64 hexadecimal digits"),
        (["sign", "."], "--keys"),
        (["revoke", "x"], "--reason"),
        (["revoke", "x", "--reason", " "], "say why"),
        (["publish", "--only", "revocation"], "'revocation' is not one of 'models', 'featured', 'flags'"),
        (["status", "--folder", "nowhere"], "does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_status_2(
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "registry.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert run(["--data-dir", str(tmp_path / "data"), "registry", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_elsewhere_than_in_the_folder_it_must_be_named(operator: Run, tmp_path: Path) -> None:
    done = operator("publish", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no registry.toml here" in done.stderr
    assert operator("publish", "--folder", "registry", cwd=tmp_path).returncode == 0


def test_a_script_gives_the_passphrase_in_the_environment_or_is_refused(operator: Run, tmp_path: Path) -> None:
    done = operator("init", "other", "--name", "Other", cwd=tmp_path)
    assert done.returncode == 1
    assert "JAN_REGISTRY_PASSPHRASE" in done.stderr
    secret = {"JAN_REGISTRY_PASSPHRASE": "correct horse"}
    assert operator("init", "other", "--name", "Other", cwd=tmp_path, **secret).returncode == 0
    other = tmp_path / "other"
    refused = operator("publish", cwd=other)
    assert refused.returncode == 1
    assert "it is encrypted, and there is no passphrase" in refused.stderr
    assert "JAN_REGISTRY_PASSPHRASE" in refused.stderr
    assert "wrong" in operator("publish", cwd=other, JAN_REGISTRY_PASSPHRASE="another").stderr
    assert operator("publish", cwd=other, **secret).returncode == 0


def test_at_a_terminal_the_passphrase_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    folder = str(tmp_path / "registry")
    shown = environment(tmp_path, TERM="xterm")
    with Terminal([JAN, "registry", "init", folder, "--name", "Example"], shown) as terminal:
        terminal.expect("Passphrase for the keys")
        terminal.type("correct horse\r")
        terminal.expect("Repeat for confirmation")
        terminal.type("correct horse\r")
        terminal.expect("15 private keys")
        assert "horse" not in terminal.raw
    with Terminal([JAN, "registry", "publish", "--folder", folder], shown) as terminal:
        terminal.expect("Passphrase of the keys")
        terminal.type("correct horse\r")
        terminal.expect("version 1 is published")
        assert "horse" not in terminal.raw


def test_keys_elsewhere_are_named_with_what_to_do(operator: Run, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    assert operator("publish").returncode == 0
    (folder / "keys/curators").rename(tmp_path / "stick")
    assert operator("add", "owner/tiny", "--name", "Tiny").returncode == 0
    preview = operator("publish", "--dry-run")
    assert "missing: 1 signature(s) for models, whose keys are not here" in preview.stderr
    done = operator("publish")
    assert done.returncode == 1
    assert "jan registry sign pending --keys DIR" in done.stderr
    waits = operator("sign", "pending", "--show")
    assert waits.stdout.startswith("models 2, valid until ")
    assert "signed by nobody" in waits.stdout
    signed = operator("sign", "pending", "--keys", str(tmp_path / "stick"), "--json")
    assert len(said(signed)["waiting"][0]["signed_by"]) == 2
    assert operator("publish").returncode == 0
    assert operator("rotate-keys", "stats", "--json").returncode == 0

"""The clients in other languages: their generated files are those of today's methods, and their own tests pass against
the real sidecar. What needs node or cargo is left out where those, or the packages they fetch, cannot be had."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from .conftest import BIN

ROOT = Path(__file__).parents[1]
TYPESCRIPT, RUST = ROOT / "clients" / "typescript", ROOT / "clients" / "rust"
ENV = {
    **os.environ,
    "JAN_SIDECAR": str(BIN / "jan-sidecar"),
    "CARGO_TERM_COLOR": "never",
    "NO_COLOR": "1",
    # Without a network it is soon known: by themselves both try for more than a minute.
    "CARGO_NET_RETRY": "1",
    "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_prefer_offline": "true",
}


def run(folder: Path, *command: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, timeout=timeout)


def check(folder: Path, *command: str | Path) -> str:
    """Run what must succeed; returns what it said."""
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def unavailable(what: str, done: subprocess.CompletedProcess[str]) -> NoReturn:
    pytest.skip(f"the {what} cannot be had: {' '.join(done.stderr.split())[-300:]}")


def wanted(program: str, least: tuple[int, ...]) -> str:
    """The path of a program of at least this version; skips the test when there is none."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    said = run(ROOT, path, "--version")
    found = tuple(map(int, re.findall(r"\d+", said.stdout)[:2]))
    if said.returncode or found < least:
        pytest.skip(f"{program} is too old or does not work: {(said.stdout or said.stderr).strip()}")
    return path


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the TypeScript client compiled."""
    node, npm = wanted("node", (20,)), wanted("npm", (9,))
    installed = TYPESCRIPT / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (TYPESCRIPT / "package-lock.json").stat().st_mtime:
        done = run(TYPESCRIPT, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
        if done.returncode:
            unavailable("packages", done)
    shutil.rmtree(TYPESCRIPT / "dist", ignore_errors=True)
    check(TYPESCRIPT, node, "node_modules/typescript/bin/tsc")
    return node


@pytest.fixture(scope="module")
def cargo() -> str:
    """Cargo, with the crates fetched."""
    cargo = wanted("cargo", (1, 87))
    if run(RUST, cargo, "fetch", "--offline").returncode and (done := run(RUST, cargo, "fetch")).returncode:
        unavailable("crates", done)
    return cargo


def test_the_generated_files_are_those_of_todays_methods() -> None:
    check(ROOT, sys.executable, ROOT / "tools" / "contracts.py", "--check")


def test_the_typescript_client_passes_its_tests_against_the_real_sidecar(node: str) -> None:
    said = check(TYPESCRIPT, node, "--test", "--test-reporter=tap", "dist/test/")
    assert "# skipped 0" in said
    passed = re.search(r"^# pass (\d+)$", said, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) > 25


def test_the_example_in_the_typescript_readme_compiles(node: str) -> None:
    example = re.search(r"```ts\n(.*?)```", (TYPESCRIPT / "README.md").read_text("utf-8"), re.DOTALL)
    assert example is not None
    folder = TYPESCRIPT / "dist" / "readme"
    folder.mkdir()
    (folder / "example.ts").write_text(example[1], "utf-8")
    options = {"noEmit": True, "rootDir": "../.."}
    config = {"extends": "../../tsconfig.json", "compilerOptions": options, "include": ["example.ts"], "exclude": []}
    (folder / "tsconfig.json").write_text(json.dumps(config), "utf-8")
    check(folder, node, TYPESCRIPT / "node_modules" / "typescript" / "bin" / "tsc")


def test_the_rust_client_passes_its_tests_against_the_real_sidecar(cargo: str) -> None:
    said = check(RUST, cargo, "test", "--offline")
    assert "skipped" not in said
    assert sum(map(int, re.findall(r"test result: ok. (\d+) passed", said))) > 15


@pytest.mark.parametrize(
    "command", [("fmt", "--check"), ("clippy", "--offline", "--lib", "--tests", "--", "-D", "warnings")]
)
def test_the_rust_client_is_clean(cargo: str, command: tuple[str, ...]) -> None:
    if run(RUST, cargo, command[0], "--version").returncode:
        pytest.skip(f"cargo {command[0]} is not installed")
    check(RUST, cargo, *command)


def test_what_is_stored_names_no_place_that_packages_come_from() -> None:
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text("utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    crates = (RUST / "Cargo.toml").read_text("utf-8")
    versions = re.findall(r'version = "(.*?)"', crates.partition("[dependencies]")[2])
    assert versions
    assert all(version.startswith("=") for version in versions)

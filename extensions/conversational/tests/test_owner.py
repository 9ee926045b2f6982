"""Who is alive: told by a lock that the system releases, not by process numbers or clocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from jan_conversational.owner import Owner


def test_an_owner_is_alive_until_it_closes(tmp_path: Path) -> None:
    one, two = Owner(tmp_path), Owner(tmp_path)
    assert one.is_alive(one.token)
    assert one.is_alive(two.token)
    assert one.is_alive(two.token)  # asking does not take the lock away
    two.close()
    two.close()
    assert not one.is_alive(two.token)
    assert not two.is_alive(two.token)
    one.close()
    assert not list(tmp_path.iterdir())


def test_an_owner_whose_process_was_killed_is_dead_though_its_file_is_there(tmp_path: Path) -> None:
    survivor = Owner(tmp_path)
    killed = "0123456789abcdef" * 2
    (tmp_path / f"{killed}.lock").touch()  # as a kill leaves it: a file that nobody holds
    assert not survivor.is_alive(killed)
    survivor.close()


def test_a_newcomer_removes_the_files_of_the_dead_and_of_nobody_else(tmp_path: Path) -> None:
    living = Owner(tmp_path)
    (tmp_path / f"{'0' * 32}.lock").touch()
    newcomer = Owner(tmp_path)
    assert {p.stem for p in tmp_path.iterdir()} == {living.token, newcomer.token}
    living.close()
    newcomer.close()


@pytest.mark.parametrize("token", ["", "x", "../" + "0" * 29, "0" * 31, "0" * 33, "A" * 32])
def test_what_is_not_a_token_is_nobody(tmp_path: Path, token: str) -> None:
    (tmp_path / f"{token.replace('/', '_')}.lock").touch()
    owner = Owner(tmp_path)
    assert not owner.is_alive(token)
    owner.close()

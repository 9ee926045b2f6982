"""`jan registry report` and `fleet` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Jan


def test_a_report_is_told_written_as_a_page_and_as_counts_without_a_name(jan: Jan, tmp_path: Path) -> None:
    page, counts = tmp_path / "report.html", tmp_path / "counts.json"
    done = jan("registry", "report", "--replay", "--html", str(page), "--export", str(counts))
    assert done.returncode == 0
    assert "phase\tfallback\n" in done.stdout
    assert "0 decisions come out the same again, 0 differ" in done.stderr
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(counts.read_text()) == {"schema": 1, "days": []}
    answer = json.loads(jan("registry", "report", "--json").stdout)
    assert (answer["phase"], answer["gate"]["action"]) == ("fallback", "stay")
    assert "html" not in answer


def test_a_report_that_cannot_be_written_is_one_line(jan: Jan, tmp_path: Path) -> None:
    done = jan("registry", "report", "--html", str(tmp_path / "nowhere" / "report.html"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "No such file" in done.stderr


def test_exports_are_judged_and_what_is_none_is_named(jan: Jan, tmp_path: Path) -> None:
    day = {"day": 20_000, "percent": 5, "answers": 3, "errors": 0, "conflicts": 0, "demoted": False}
    for number, arm in enumerate(["dynamic"] + ["builtin"] * 19):
        (tmp_path / f"{number}.json").write_text(json.dumps({"schema": 1, "days": [{**day, "arm": arm}]}))
    (tmp_path / "other.json").write_text("[]")
    done = jan("registry", "fleet", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.split("\t")[:4] == ["2024-10-05 00:00", "0/1 beside 0/19", "stay", "5"]
    assert done.stderr.startswith("not used: other.json: ")
    assert "20 exports; 5 % of machines may be served the dynamic list\n" in done.stderr
    assert jan("registry", "fleet", str(tmp_path), "--steps", "a,b").returncode == 2

"""What is said of files that are to be fetched: the options of a download, and the URL of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from .amounts import Moment, Rate
from .app import wrong_usage

__all__ = ["fetch_options", "file_at", "given"]


def fetch_options(command: Any) -> Any:
    """How files are fetched: the same options wherever a download begins."""
    for option in (
        click.option("--limit", type=Rate(), help="At most so many bytes a second: 500k, 5M, 2MiB; or none."),
        click.option("--priority", type=click.IntRange(-100, 100), help="Higher ones first. Default: 0."),
        click.option("--not-before", type=Moment(), metavar="TIME", help="Begin at 22:30, or 2026-11-30 22:30."),
    ):
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options, those that were given."""
    return {name: value for name, value in options.items() if value is not None}


def file_at(url: str, sha256: str) -> dict[str, Any]:
    """The file at a URL, as `downloads.start` wants it described. Anything that is no file's URL is wrong usage."""
    try:
        parts = urlsplit(url)
        name, usable = unquote(parts.path.rpartition("/")[2]), parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        name, usable = "", False
    if not name or not usable:
        wrong_usage(f"{url!r} is not the URL of a file (http or https)")
    return {"name": name, "url": url, "sha256": sha256}

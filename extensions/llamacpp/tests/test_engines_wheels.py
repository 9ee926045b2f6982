"""Which wheel of an index suits this machine, and which file a person gives is one at all."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.engines.diagnosis import AttemptFailed
from jan_llamacpp.engines.wheels import Offer, best_of, check_file, offers, version_in
from packaging.tags import Tag

from .wheel_index import PLATFORM

URL = "https://wheels.example/whl/cpu/llama-cpp-python/"
NAME = "llama_cpp_python-0.3.36-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
SHA256 = "ab" * 32
LINUX = [Tag("cp311", "cp311", "linux_x86_64"), Tag("py3", "none", "manylinux_2_17_x86_64")]
LINUX += [Tag("py3", "none", "linux_x86_64"), Tag("py3", "none", "any")]


def page(*anchors: str) -> bytes:
    return f"<!DOCTYPE html><html><body>{''.join(anchors)}</body></html>".encode()


def wheel(version: str, tag: str = "py3-none-linux_x86_64", build: str = "") -> Offer:
    name = f"llama_cpp_python-{version}{build}-{tag}.whl"
    return Offer(name, f"{URL}{name}")


def test_a_page_of_links_is_read() -> None:
    links = page(
        f'<a href="../../files/{NAME}#sha256={SHA256}" data-requires-python="&gt;=3.8">{NAME}</a>',
        '<a href="https://other.example/llama_cpp_python-0.3.35-py3-none-any.whl#md5=00">x</a>',
        '<a href="llama_cpp_python-0.3.30%2Bcu124-cp311-cp311-linux_x86_64.whl#sha256=short">x</a>',
        '<a href="llama_cpp_python-0.3.34-py3-none-any.whl" data-yanked="broken">x</a>',
        '<a href="llama_cpp_python-0.3.36.tar.gz">x</a>',
        '<a href="numpy-2.0.0-py3-none-any.whl">x</a>',
        '<a href="../">up</a><a>nowhere</a>',
    )
    assert offers(links, "text/html", URL) == [
        Offer(NAME, f"https://wheels.example/whl/files/{NAME}", SHA256, ">=3.8"),
        Offer(
            "llama_cpp_python-0.3.35-py3-none-any.whl", "https://other.example/llama_cpp_python-0.3.35-py3-none-any.whl"
        ),
        Offer(
            "llama_cpp_python-0.3.30+cu124-cp311-cp311-linux_x86_64.whl",
            f"{URL}llama_cpp_python-0.3.30%2Bcu124-cp311-cp311-linux_x86_64.whl",
        ),
        Offer("llama_cpp_python-0.3.36.tar.gz", f"{URL}llama_cpp_python-0.3.36.tar.gz"),
    ]


def test_a_page_s_base_is_where_its_links_begin() -> None:
    [offer] = offers(page('<base href="https://cdn.example/a/">', f'<a href="{NAME}">x</a>'), "text/html", URL)
    assert offer.url == f"https://cdn.example/a/{NAME}"


def test_a_json_page_is_read() -> None:
    files = [
        {"filename": NAME, "url": f"/f/{NAME}", "hashes": {"sha256": SHA256.upper()}, "requires-python": ">=3.8"},
        {"filename": "llama_cpp_python-0.3.1-py3-none-any.whl", "url": "x", "hashes": {}, "yanked": "bad"},
    ]
    json = msgspec.json.encode({"meta": {"api-version": "1.0"}, "name": "llama-cpp-python", "files": files})
    assert offers(json, "application/vnd.pypi.simple.v1+json", URL) == [
        Offer(NAME, f"https://wheels.example/f/{NAME}", SHA256, ">=3.8")
    ]


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"<html><body><h1>Hotel network</h1><a href='/login'>Sign in</a></body></html>", "text/html"),
        (b"", "text/html"),
        (b"{}", "application/json"),
        (b"not json", "application/vnd.pypi.simple.v1+json"),
        (page('<a href="numpy-2.0.0-py3-none-any.whl">numpy</a>'), "text/html"),
    ],
)
def test_what_is_no_index_is_told_from_one_without_our_version(body: bytes, type: str) -> None:
    with pytest.raises(AttemptFailed, match=r"wheels\.example answered is not a package index") as caught:
        offers(body, type, URL)
    assert caught.value.reason == "web_page"


@given(st.binary(max_size=400) | st.text(alphabet="<a href=\"'#>/sha256whl-.&%[]:?", max_size=200).map(str.encode))
def test_no_page_makes_reading_it_fail_otherwise(body: bytes) -> None:
    for type in ("text/html", "application/json"):
        with contextlib.suppress(AttemptFailed):
            assert all(offer.url for offer in offers(body, type, URL))


def test_the_wheel_of_the_version_and_for_the_system_is_taken() -> None:
    found = [wheel("0.3.36", "py3-none-macosx_11_0_arm64"), wheel("0.3.36"), wheel("0.3.37")]
    assert best_of(found, "0.3.36", LINUX) == found[1]


def test_of_several_that_fit_the_most_wanted_is_taken() -> None:
    plain, many = wheel("0.3.36"), wheel("0.3.36", "py3-none-manylinux_2_17_x86_64")
    old = wheel("0.3.36", "cp311-cp311-linux_x86_64")
    assert best_of([plain, many], "0.3.36", LINUX) == many
    assert best_of([plain, old, many], "0.3.36", LINUX) == old
    assert best_of([wheel("0.3.36", build="-9"), wheel("0.3.36", build="-10")], "0.3.36", LINUX).filename.count("-10-")


def test_a_local_version_is_a_build_of_the_same_release_and_orders_by_its_numbers() -> None:
    found = [wheel("0.3.36+cu9"), wheel("0.3.36"), wheel("0.3.36+cu10")]
    assert best_of(found, "0.3.36", LINUX) == found[2]


def test_a_wheel_for_another_python_is_left_out() -> None:
    future = Offer(wheel("0.3.36").filename, "x", requires_python=">=4")
    with pytest.raises(AttemptFailed, match="not for this system"):
        best_of([future], "0.3.36", LINUX)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([wheel("0.3.36", "py3-none-win_amd64")], "the index has 0.3.36 for win_amd64, not for this system"),
        ([wheel("0.3.9"), wheel("0.3.35")], "no wheel of version 0.3.36; its newest is 0.3.35"),
        ([Offer("llama_cpp_python-0.3.36.tar.gz", "x")], "no wheel of version 0.3.36"),
    ],
)
def test_why_there_is_none_is_said(found: list[Offer], words: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        best_of(found, "0.3.36", LINUX)
    assert (caught.value.reason, words in str(caught.value)) == ("not_found", True)


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return path


CONTENT = ("llama_cpp/__init__.py", "llama_cpp_python-0.3.36.dist-info/METADATA")


def test_a_wheel_of_the_engine_is_taken_and_hashed(tmp_path: Path) -> None:
    good = archive(tmp_path / f"llama_cpp_python-0.3.36-py3-none-{PLATFORM}.whl", *CONTENT)
    actual = hashlib.sha256(good.read_bytes()).hexdigest()
    assert check_file(good, "0.3.36") == check_file(good, "0.3.36", actual.upper()) == actual
    assert version_in(good) == "0.3.36"


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("engine.whl", "not_a_wheel", "is not named as a wheel is: llama_cpp_python-<version>-py3-none-<platform>.whl"),
        ("llama_cpp_python-0.3.36.tar.gz", "not_a_wheel", "is a source archive; a wheel (.whl) is needed"),
        ("model.gguf", "not_a_wheel", "is not named as a wheel is"),
        ("numpy-2.0.0-py3-none-any.whl", "wrong_package", "is the package numpy, not llama-cpp-python"),
        ("llama_cpp_python-0.3.9-py3-none-any.whl", "wrong_version", "is version 0.3.9, not 0.3.36"),
        (
            "llama_cpp_python-0.3.36-py3-none-solaris_9.whl",
            "wrong_platform",
            f"is for solaris_9; this system takes {PLATFORM}",
        ),
        ("llama_cpp_python-0.3.36-cp38-cp38-any.whl", "wrong_platform", "is for any"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(tmp_path: Path, name: str, reason: str, words: str) -> None:
    file = archive(tmp_path / name, *CONTENT)
    with pytest.raises(AttemptFailed) as caught:
        check_file(file, "0.3.36")
    assert caught.value.reason == reason
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sha256", "reason"),
    [
        (b"<html>", "", "not_a_wheel"),
        (b"", "", "not_a_wheel"),
        (None, "0" * 64, "wrong_hash"),
        ((), "", "wrong_package"),
        (("numpy/__init__.py", "numpy-2.0.0.dist-info/METADATA"), "", "wrong_package"),
    ],
)
def test_a_file_with_another_content_is_refused(
    tmp_path: Path, content: bytes | tuple[str, ...] | None, sha256: str, reason: str
) -> None:
    file = tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        archive(file, *(CONTENT if content is None else content))
    with pytest.raises(AttemptFailed) as caught:
        check_file(file, "0.3.36", sha256)
    assert caught.value.reason == reason


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AttemptFailed, match="cannot be read"):
        check_file(tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl", "0.3.36")

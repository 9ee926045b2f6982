"""What comes with the product does what is asked of everybody's extensions, by the check that is shipped to authors."""

from __future__ import annotations

import pytest

from jan_core.loader import installed
from jan_core.testing import assert_extension_conforms

OUTWARD = {
    "download": ["downloads.start"],
    "llamacpp": [
        "chat.complete",
        "completions.create",
        "embeddings.create",
        "engines.install",
        "models.load",
        "tokens.count",
    ],
    "registry": ["registry.refresh"],
}
"""Methods that fetch or build something: they are called in the tests of their own packages."""

SOURCES = {source.id: source for source in installed()}


def test_the_five_are_installed() -> None:
    assert {"assistant", "conversational", "download", "llamacpp", "registry"} <= set(SOURCES)


@pytest.mark.parametrize("id", sorted(SOURCES))
async def test_a_first_party_extension_is_what_a_host_expects(id: str) -> None:
    await assert_extension_conforms(SOURCES[id], uncalled=OUTWARD.get(id, ()))

"""When a client is told to come again."""

from __future__ import annotations

from typing import Any

import pytest
from jan_sidecar.http.errors import error_response

from jan_core import JanError, Overloaded


class Broken(JanError):
    code, type = -32098, "broken"


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (Overloaded("full"), 503, "1"),
        (Overloaded("it dies too often", retry_after=59.2), 503, "60"),
        (Overloaded("odd", retry_after="soon"), 503, "1"),
        (Overloaded("odd", retry_after=float("nan")), 503, "1"),
        (Broken("for good", retry_after=5), 500, None),
    ],
)
def test_a_client_is_told_when_to_try_again(error: JanError, status: int, after: Any) -> None:
    response = error_response(error)
    assert (response.status_code, response.headers.get("retry-after")) == (status, after)

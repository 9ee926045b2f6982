"""One table: how a typed error becomes an HTTP status and OpenAI's error object. Nothing else decides a status.

OpenAI's form, which every client library parses: `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from jan_core import JanError

__all__ = ["ApiError", "Refusal", "error_body", "error_response", "row_for"]


class Row(NamedTuple):
    """`code` None: the error's own `type` string is the code."""

    status: int
    type: str = "invalid_request_error"
    code: str | None = None


TABLE: dict[str, Row] = {
    # what the request says is wrong
    "parse_error": Row(400, code="invalid_json"),
    "invalid_request": Row(400),
    "invalid_params": Row(400, code="invalid_value"),
    "context_overflow": Row(400, code="context_length_exceeded"),
    "template_failed": Row(400),
    "invalid_generation": Row(400),
    "embedding_failed": Row(422),
    "invalid_image": Row(400),
    "request_refused": Row(403, "permission_error"),
    "model_not_found": Row(404),
    "remote_refused": Row(400),
    "remote_not_found": Row(404),
    "remote_model_not_found": Row(404),
    # what another machine's answer is: nothing this client can mend, and nothing it should try again
    "remote_auth_failed": Row(502, "server_error"),
    "remote_answer_invalid": Row(502, "server_error"),
    # what cannot be done now, and may be tried again
    "overloaded": Row(503, "server_error"),
    "shutting_down": Row(503, "server_error"),
    "extension_reloaded": Row(503, "server_error"),
    "worker_died": Row(503, "server_error"),
    "generation_failed": Row(503, "server_error"),
    "model_busy": Row(503, "server_error"),
    "cancelled": Row(503, "server_error"),
    # what this installation lacks
    "method_not_found": Row(503, "server_error", "unavailable"),
    "extension_unavailable": Row(503, "server_error", "unavailable"),
    "engine_install_failed": Row(503, "server_error"),
    "no_usable_engine": Row(503, "server_error"),
    "engine_broken": Row(500, "server_error"),
    "model_load_failed": Row(500, "server_error"),
    "invalid_model_file": Row(500, "server_error"),
    "storage_error": Row(500, "server_error"),
    "internal_error": Row(500, "server_error"),
}
"""By the stable `type` of the error. A domain error not named here is 503 when retryable, else 500."""


class ApiError(msgspec.Struct):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Refusal(Exception):
    """A request this layer refuses before any method sees it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        kind = {401: "authentication_error", 403: "permission_error"}.get(status, "invalid_request_error")
        self.error = ApiError(message, kind, param, code)


def row_for(error: JanError) -> Row:
    """The row of the table that holds for this error."""
    row = TABLE.get(error.type)
    if row is None:
        row = Row(503 if error.retryable else 500, "server_error")
    return row._replace(code=row.code or error.type)


def error_body(error: ApiError) -> bytes:
    """The JSON body that carries an error."""
    return msgspec.json.encode({"error": error})


def api_error(error: JanError) -> ApiError:
    """OpenAI's form of a typed error. `param` is the path of the bad field, as `messages[0].role`."""
    row = row_for(error)
    path = error.data.get("path")
    param = str(path).removeprefix("$").removeprefix(".") if path else None
    if row.code == "model_not_found":
        param = "model"
    message = error.message
    if "errorId" in error.data:
        message += f" (error id {error.data['errorId']}, see the log)"
    return ApiError(message, row.type, param or None, row.code)


def error_response(error: JanError | Refusal) -> Response:
    """The whole response for an error that came before anything was sent."""
    if isinstance(error, Refusal):
        status, body, headers = error.status, error_body(error.error), error.headers
    else:
        status, body, headers = row_for(error).status, error_body(api_error(error)), {}
        if status == 503 and error.retryable:
            headers = {"Retry-After": _seconds(error.data.get("retry_after"))}
    return Response(body, status, headers, media_type="application/json")


def _seconds(after: object) -> str:
    """What an error says of when to try again, as the header has it."""
    return str(math.ceil(after)) if isinstance(after, int | float) and 1 <= after <= 86_400 else "1"

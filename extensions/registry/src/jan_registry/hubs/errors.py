"""What can go wrong with another hub, as callers see it. No address with a query, and no token, is ever part of it."""

from __future__ import annotations

from typing import Any, Literal

from jan_core import JanError

__all__ = ["HubInvalid", "HubRefused", "HubUnreachable", "Refusal", "error_of"]

Refusal = Literal["auth_required", "license_required", "rate_limited", "offline", "unsupported"]


class HubUnreachable(JanError):
    """The hub did not answer, or not with what was asked for. `host`; `status` of HTTP, 0 when there was no answer;
    `retry_after` in seconds, 0 when the hub named none."""

    code, type, retryable = -32075, "hub_unreachable", True

    def __init__(self, message: str, *, host: str = "", status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message, host=host, status=status, retry_after=retry_after)
        self.retry_after = retry_after


class HubRefused(JanError):
    """The hub will not answer this. `reason`: `auth_required` (a token is missing or does not do), `license_required`
    (its licence must be accepted at the hub), `rate_limited` (retry after `retry_after` seconds), `offline` (this
    machine may not use the network now), `unsupported` (this kind of hub cannot answer such a question)."""

    code, type = -32076, "hub_refused"

    def __init__(self, message: str, *, reason: Refusal, retry_after: float = 0.0, **data: Any) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after, **data)
        self.reason, self.retry_after = reason, retry_after
        self.retryable = reason in ("rate_limited", "offline")  # type: ignore[misc]  # as the reason has it


class HubInvalid(JanError):
    """The hub answered with something that cannot be used."""

    code, type = -32077, "hub_invalid"


def error_of(host: str, status: int, wait: float) -> JanError:
    """What a status of HTTP that is no answer means. `wait`: seconds for which the server wants to be left alone."""
    if status == 401:
        return HubRefused(f"{host} wants to know who asks (401)", reason="auth_required", host=host, status=status)
    if status == 403:
        return HubRefused(f"{host} does not show this (403)", reason="auth_required", host=host, status=status)
    if status == 429:
        message = f"{host} was asked too often (429); again in {wait:.0f} s"
        return HubRefused(message, reason="rate_limited", retry_after=wait, host=host, status=status)
    if status >= 500 or status in (408, 425):
        return HubUnreachable(f"{host} answered {status}", host=host, status=status, retry_after=wait)
    return HubInvalid(f"{host} answered {status}", host=host, status=status)

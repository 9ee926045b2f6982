"""What can go wrong with the model list, as callers see it. Codes -32070 to -32079."""

from __future__ import annotations

from jan_core import JanError

__all__ = [
    "ModelNotFetchable",
    "ModelRevoked",
    "ModelUnknown",
    "NoRegistry",
    "RegistryRefused",
    "RegistryUnreachable",
]


class ModelUnknown(JanError):
    """No list there is has a model of this `id`."""

    code, type = -32070, "model_unknown"


class RegistryUnreachable(JanError):
    """The hub did not answer, or not with what was asked for. What was valid last is still served."""

    code, type, retryable = -32071, "registry_unreachable", True


class RegistryRefused(JanError):
    """The hub answered with something that is not vouched for, or is older than what is known: `kind` says what is
    wrong with it. What was valid last is still served."""

    code, type = -32072, "registry_refused"


class NoRegistry(JanError):
    """No hub is named: the setting `url` is empty, so the network is not used."""

    code, type = -32073, "no_registry"


class ModelNotFetchable(JanError):
    """The model is known, but its list says of no file where it can be had."""

    code, type = -32074, "model_not_fetchable"


class ModelRevoked(JanError):
    """The model, or one of its files, was revoked by the hub: `reason` says why."""

    code, type = -32078, "model_revoked"

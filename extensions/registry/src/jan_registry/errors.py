"""What can go wrong with the model list, as callers see it. Codes -32070 to -32079."""

from __future__ import annotations

from jan_core import JanError

__all__ = ["ModelNotFetchable", "ModelUnknown", "NoRegistry", "RegistryInvalid", "RegistryUnreachable"]


class ModelUnknown(JanError):
    """No list there is has a model of this `id`."""

    code, type = -32070, "model_unknown"


class RegistryUnreachable(JanError):
    """The source did not answer, or not with a list. What was valid last is still served."""

    code, type, retryable = -32071, "registry_unreachable", True


class RegistryInvalid(JanError):
    """The source answered with something that is no usable list. What was valid last is still served."""

    code, type = -32072, "registry_invalid"


class NoRegistry(JanError):
    """No source is named: the setting `url` is empty, so the network is not used."""

    code, type = -32073, "no_registry"


class ModelNotFetchable(JanError):
    """The model is known, but its list says of no file where it can be had."""

    code, type = -32074, "model_not_fetchable"

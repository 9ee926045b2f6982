"""Our flags as OpenFeature knows flags: a provider over a list of them, and a client of its own.

OpenFeature keeps providers in a registry of the whole process, that an application may use for its own flags and that
nothing can be taken out of. So this client is bound to its provider and registers neither: nothing of an application
is replaced, and nothing stays behind when the extension is reloaded. Hooks that an application adds to the whole
process see these evaluations too; the unit that buckets are drawn from is therefore the provider's own and no part of
the context. Importing this module imports OpenFeature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata, ProviderStatus

from ..targeting import FIELDS, Facts
from .rules import FlagList, evaluate

__all__ = ["FlagClient", "FlagProvider"]

T = TypeVar("T")
Objects = Sequence[FlagValueType] | Mapping[str, FlagValueType]


class FlagProvider(AbstractProvider):
    """Evaluates the flags of one list for one machine.

    Attributes of an evaluation's context count where `facts` has nothing. `stale`: the list's metadata have expired;
    each answer then has the reason STALE, and the one it would have had as `evaluated` in its metadata. The variant is
    the value as text; `rule` in the metadata is the place of the rule that decided. Flags are booleans, whole numbers
    and text: asking for another type is TYPE_MISMATCH, and answers the default.
    """

    def __init__(self, flags: FlagList, facts: Facts, unit: Callable[[], str | None], *, stale: bool = False) -> None:
        super().__init__()
        self._flags: FlagList | None = flags
        self._facts, self._unit, self._stale = facts, unit, stale

    @property
    def status(self) -> ProviderStatus:
        if self._flags is None:
            return ProviderStatus.NOT_READY
        return ProviderStatus.STALE if self._stale else ProviderStatus.READY

    def get_metadata(self) -> Metadata:
        return Metadata(name="jan-registry")

    def shutdown(self) -> None:
        self._flags, self._facts, self._unit = None, {}, _nobody

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, evaluation_context, bool)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, evaluation_context, str)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, evaluation_context, int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._resolve(flag_key, default_value, evaluation_context, float)

    def resolve_object_details(
        self, flag_key: str, default_value: Objects, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Objects]:
        return self._resolve(flag_key, default_value, evaluation_context, dict)

    def _resolve(self, key: str, default: T, context: EvaluationContext | None, kind: type) -> FlagResolutionDetails[T]:
        if self._flags is None:
            return _refused(default, ErrorCode.PROVIDER_NOT_READY, "the provider was shut down")
        flag = self._flags.flags.get(key)
        if flag is None:
            return _refused(default, ErrorCode.FLAG_NOT_FOUND, f"there is no flag {key!r}")
        found = evaluate(flag, self._known(context), self._unit)
        if type(found.value) is not kind:  # a bool is an int to isinstance, and is none here
            return _refused(default, ErrorCode.TYPE_MISMATCH, f"{key} is a {type(found.value).__name__}")
        value: Any = found.value
        return FlagResolutionDetails(
            value=value,
            reason=Reason.STALE if self._stale else Reason(found.reason),
            variant=str(value).lower() if isinstance(value, bool) else str(value),
            flag_metadata={"rule": found.rule, "evaluated": found.reason},
        )

    def _known(self, context: EvaluationContext | None) -> Facts:
        if context is None or not context.attributes:
            return self._facts
        said: dict[str, Any] = {name: value for name, value in context.attributes.items() if name in FIELDS}
        return said | self._facts


class FlagClient(OpenFeatureClient):
    """A client of one provider, which is in no registry."""

    def __init__(self, provider: FlagProvider) -> None:
        super().__init__(domain="jan-registry", version=None)
        self._provider = provider

    @property
    def provider(self) -> FlagProvider:
        return self._provider

    def get_provider_status(self) -> ProviderStatus:
        return self._provider.status

    def close(self) -> None:
        self._provider.shutdown()


def _nobody() -> None:
    return None


def _refused(default: T, code: ErrorCode, message: str) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(value=default, reason=Reason.ERROR, error_code=code, error_message=message)

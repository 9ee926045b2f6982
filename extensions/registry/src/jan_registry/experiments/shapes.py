"""Params and results of the methods about experiments, and the form in which counts of many machines are added up."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from .enrolment import Status

__all__ = [
    "Aggregate",
    "BranchCounts",
    "Comparison",
    "ExperimentId",
    "ExperimentReport",
    "ExperimentsQuery",
    "ExperimentsReport",
    "JoinExperiment",
    "Kind",
]

Kind = Literal["download", "load", "chat"]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class BranchCounts(Struct, forbid_unknown_fields=True):
    """Machines of one branch: how many were drawn, were shown the list, have had their week since, and in it
    downloaded, loaded or talked with a model that was shown to them. Of one machine, each is 0 or 1."""

    branch: Id
    ratio: Annotated[int, Meta(ge=1, le=1000)] = 1
    enrolled: Count = 0
    exposed: Count = 0
    settled: Count = 0
    converted: dict[Kind, Count] = field(default_factory=dict)


class Aggregate(Struct, forbid_unknown_fields=True):
    """Counts of one experiment, of one machine or many. There is nothing in it that tells one machine from another.

    `key` names the experiment and what must not change while it runs; the first branch is the control.
    """

    experiment: Id
    key: Id
    branches: Annotated[list[BranchCounts], Meta(min_length=2, max_length=16)]
    metric: Kind = "download"


class ExperimentsQuery(Struct, forbid_unknown_fields=True):
    """`merge`: what other machines exported (`own` of their answers), added to what was counted here; without `here`,
    only that."""

    merge: Annotated[list[Aggregate], Meta(max_length=100_000)] = field(default_factory=list)
    here: bool = True


class ExperimentId(Struct, forbid_unknown_fields=True):
    """The id of an experiment in the list."""

    experiment: Id


class JoinExperiment(Struct, forbid_unknown_fields=True):
    """The id of an experiment in the list, and of one of its branches."""

    experiment: Id
    branch: Id


class Comparison(Struct):
    """A branch beside the control, by the experiment's metric.

    `difference`: of the proportions of machines that did it, null as long as one has none; `low` and `high`: between
    these it lies, with 95 % for all branches together and however often one looks. `p` is a p-value that may be looked
    at as often. `verdict`: `better` or `worse` once p is below 0.05; `open`; `mismatch`: nothing can be said.
    """

    branch: str
    difference: float | None
    low: float
    high: float
    p: float
    verdict: Literal["better", "worse", "open", "mismatch"]


class ExperimentReport(Struct, kw_only=True):
    """How an experiment stands. `status`, `reason` and `branch` are this machine's; `state` is the operator's, "" for
    one that is not in the list.

    `mismatch_p`: how likely it is that chance alone divides the machines that were shown something as they are, looked
    at as often as one likes; `chi_square_p`: the same for one look. `stop`: the first is below 0.001, so that something
    is wrong with the experiment and its outcomes mean nothing.
    """

    experiment: str
    key: str
    title: str = ""
    state: str = ""
    metric: Kind = "download"
    status: Status = "not_enrolled"
    reason: str = ""
    branch: str = ""
    sessions: int = 0
    branches: list[BranchCounts] = field(default_factory=list)
    mismatch_p: float = 1.0
    chi_square_p: float = 1.0
    stop: bool = False
    comparisons: list[Comparison] = field(default_factory=list)


class ExperimentsReport(Struct):
    """`enabled`: this machine takes part in experiments now. `own`: its counts, in the form in which they can be given
    to the operator by hand: nothing is sent. `notes`: what could not be read of this machine's part."""

    enabled: bool
    experiments: list[ExperimentReport]
    own: list[Aggregate]
    notes: list[str] = field(default_factory=list)

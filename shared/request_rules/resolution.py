"""The passes over a request, before any work is done: the same for `POST /jobs`, `efface run` and
`efface submit`.

Each door brings a finder, which says what a reference stands for there: a tenant's row, or a
path. All else is one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shared.errors import FieldError, InvalidRequest
from shared.request_rules.classes import (
    RETAIN,
    class_errors,
    labels_of,
    measured_sets,
    merged,
    spelled,
)
from shared.request_rules.method_data import data_errors, reference_errors
from shared.request_rules.references import FoundData
from shared.request_rules.request_warnings import request_warnings
from shared.request_rules.roles import role_errors
from shared.request_rules.thresholds import ResolvedThresholds, resolve_thresholds
from shared.request_rules.time_of_receipt import check_received
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.resolution import MeasuredSet, RequestWarning
from shared.schemas.spec import LISTS, ROLES, DataSource, DataSources, JobSpec, ModelSource


class Finder(Protocol):
    """Finds what references stand for. Raises InvalidRequest where there is nothing, or nothing
    that is allowed.
    """

    def model(self, pointer: str, reference: ModelReference) -> ModelSource:
        """Return a model's source."""
        ...

    def data(self, pointer: str, name: str, reference: str) -> FoundData:
        """Return a data set's source, under the name that the request gives it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A request whose references were all found."""

    model: ModelSource
    data: DataSources
    reference: ModelSource | None
    """What `audit.reference` names."""
    thresholds: Thresholds
    labels: tuple[str, ...]
    sets: tuple[MeasuredSet, ...]
    warnings: tuple[RequestWarning, ...]

    def spec(
        self, request: ErasureRequest, *, job_id: str, tenant_id: str, attempt: int
    ) -> JobSpec:
        """Return the specification of a job for the request."""
        return JobSpec(
            job_id=job_id,
            tenant_id=tenant_id,
            attempt=attempt,
            request=request,
            thresholds=self.thresholds,
            model=self.model,
            reference=self.reference,
            data=self.data,
            warnings=self.warnings,
        )


def resolve(request: ErasureRequest, finder: Finder) -> Resolved:
    """Check a request against what there is, and resolve it.

    Raises:
        InvalidRequest: with every error that was found, not just the first.
    """
    found = _look_up(request, finder)
    errors = [*found.errors, *errors_in(request, found)]
    if errors or found.model is None:
        raise InvalidRequest(errors)
    judged = _judged(request, found)
    warnings = request_warnings(request, judged.labels, judged.sets, found.counts)
    notes = (
        RequestWarning(pointer=note.pointer, detail=note.detail) for note in judged.thresholds.notes
    )
    return Resolved(
        model=found.model,
        data=found.sources(),
        reference=found.reference,
        thresholds=judged.thresholds.thresholds,
        labels=judged.labels,
        sets=judged.sets,
        warnings=(*warnings, *notes),
    )


def check(request: ErasureRequest, finder: Finder) -> None:
    """Check a request as far as this finder knows what its references stand for.

    Raises:
        InvalidRequest: with every error that was found.
    """
    found = _look_up(request, finder)
    errors = [*found.errors, *errors_in(request, found)]
    if errors:
        raise InvalidRequest(errors)
    if found.complete:
        _judged(request, found)


class Judged(NamedTuple):
    """By which labels, on which sets and by which thresholds a request is judged."""

    labels: tuple[str, ...]
    sets: tuple[MeasuredSet, ...]
    thresholds: ResolvedThresholds


def _judged(request: ErasureRequest, found: "Lookup") -> Judged:
    """Return what a request without errors is judged by. Images are counted under the names that
    they are measured with.

    Raises:
        InvalidRequest: a threshold cannot be answered or met.
    """
    labels = labels_of(
        request, (name for pointer in RETAIN for name in found.counts.get(pointer, ()))
    )
    sets = measured_sets(request, labels, found.evaluation())
    given = {
        pointer: merged(counts, spelled(counts, labels)) for pointer, counts in found.counts.items()
    }
    return Judged(
        labels,
        sets,
        resolve_thresholds(request, {entry.name: entry.classes for entry in sets}, given),
    )


@dataclass(slots=True)
class Lookup:
    """What the references of a request stand for."""

    request: ErasureRequest
    model: ModelSource | None = None
    reference: ModelSource | None = None
    data: dict[str, DataSource] = field(default_factory=dict)
    """Sources by pointer."""
    counts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """Images of each class by pointer."""
    complete: bool = True
    """False where the classes of some set are not known here."""
    errors: list[FieldError] = field(default_factory=list)

    def evaluation(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Yield each evaluation set's name with its classes."""
        for number, entry in enumerate(self.request.data.evaluation):
            yield entry.name, self.counts[f"/data/evaluation/{number}/dataset"]

    def sources(self) -> DataSources:
        """Return the sources by role."""
        roles = {role: self.data.get(f"/data/{role}") for role in ROLES}
        lists = {
            role: tuple(self.data[pointer] for pointer, *_ in named_sets(self.request, role))
            for role in LISTS
        }
        return DataSources.model_validate(roles | lists)


def given_sets(request: ErasureRequest) -> Iterator[tuple[str, str, str]]:
    """Yield the pointer, name and reference of every data set that a request gives."""
    for role in ROLES:
        if (reference := getattr(request.data, role)) is not None:
            yield f"/data/{role}", role, reference
    for role in LISTS:
        yield from named_sets(request, role)


def named_sets(request: ErasureRequest, role: str) -> Iterator[tuple[str, str, str]]:
    """Yield the pointer, name and reference of each set in a role that may have several."""
    for number, entry in enumerate(getattr(request.data, role)):
        yield f"/data/{role}/{number}/dataset", entry.name, entry.dataset


def errors_in(request: ErasureRequest, found: Lookup) -> list[FieldError]:
    """Return what is wrong with a request, given what its references stand for."""
    errors = list(_time_errors(request)) + data_errors(request)
    if found.complete:
        errors += class_errors(request, found.counts)
    if not found.errors:
        errors += role_errors(request, found.sources())
    if found.model is not None:
        errors += reference_errors(found.model, found.reference)
    return errors


def _look_up(request: ErasureRequest, finder: Finder) -> Lookup:
    found = Lookup(request)
    with _collected(found.errors):
        found.model = finder.model("/model", request.model)
    if request.audit.reference is not None:
        with _collected(found.errors):
            found.reference = finder.model("/audit/reference", request.audit.reference)
    for pointer, name, reference in given_sets(request):
        with _collected(found.errors):
            there = finder.data(pointer, name, reference)
            found.data[pointer] = there.source
            if there.counts is None:
                found.complete = False
            else:
                found.counts[pointer] = there.counts
    return found


@contextmanager
def _collected(errors: list[FieldError]) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        errors += error.errors


def _time_errors(request: ErasureRequest) -> Iterator[FieldError]:
    if request.received_at is not None:
        try:
            check_received(request.received_at, "/received_at")
        except InvalidRequest as error:
            yield from error.errors

"""Everything about a request that can be checked before its job exists, and what its references stand for."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from services import datasets, models
from services.references import allowed_path, model_reference
from shared.errors import EffaceError, FieldError, InvalidRequest
from shared.schemas.request import ClassTarget, ErasureRequest, SubgroupTarget, Thresholds
from shared.schemas.spec import DataSource, DataSources, ModelSource
from shared.schemas.thresholds import resolve_thresholds
from shared.settings import Settings

ROLES = ("forget", "retain", "calibration", "proxy", "forget_test", "retain_test")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request whose references were all found."""

    model: ModelSource
    data: DataSources
    thresholds: Thresholds


def resolve(session: Session, tenant_id: str, request: ErasureRequest, settings: Settings) -> Resolved:
    """Check a request against what the tenant has, and resolve it.

    Raises:
        InvalidRequest: with every error that was found, not just the first.
    """
    errors: list[FieldError] = []
    resolver = _Resolver(session, tenant_id, settings, errors)
    model = resolver.model(request)
    roles = {role: resolver.data(f"/data/{role}", role, getattr(request.data, role)) for role in ROLES}
    evaluation = [
        resolver.data(f"/data/evaluation/{number}/dataset", entry.name, entry.dataset)
        for number, entry in enumerate(request.data.evaluation)
    ]
    _check_classes(request, resolver.classes, errors)
    if errors or model is None:
        raise InvalidRequest(errors)
    known = {
        entry.name: resolver.classes[f"/data/evaluation/{i}/dataset"] for i, entry in enumerate(request.data.evaluation)
    }
    thresholds = resolve_thresholds(request, known)
    sources = DataSources(**roles, evaluation=tuple(source for source in evaluation if source))
    return Resolved(model, sources, thresholds)


class _Resolver:
    """Looks references up and collects what is wrong with them."""

    def __init__(self, session: Session, tenant_id: str, settings: Settings, errors: list[FieldError]) -> None:
        self._session, self._tenant_id, self._settings, self._errors = session, tenant_id, settings, errors
        self.classes: dict[str, set[str]] = {}
        """Pointer -> the classes of the data set there; empty for a path, which the worker opens."""

    def model(self, request: ErasureRequest) -> ModelSource | None:
        if request.model.id is None:
            try:
                return ModelSource(reference=model_reference(request.model, self._settings, "/model"))
            except InvalidRequest as error:
                self._errors += error.errors
                return None
        row = models.find(self._session, self._tenant_id, request.model.id)
        if row is None:
            self._errors.append(
                FieldError("/model/id", f"there is no model {request.model.id!r}; GET /models lists what there is")
            )
            return None
        return ModelSource(reference=row.reference, id=row.id, digest=row.digest)

    def data(self, pointer: str, name: str, reference: str | None) -> DataSource | None:
        if reference is None:
            return None
        self.classes[pointer] = set()
        if reference.startswith("ds_"):
            row = datasets.find(self._session, self._tenant_id, reference)
            if row is None:
                self._errors.append(
                    FieldError(pointer, f"there is no data set {reference!r}; upload it with POST /datasets")
                )
                return None
            self.classes[pointer] = set(row.classes)
            return DataSource(name=name, uri=f"storage:{row.key}", id=row.id, digest=row.digest)
        try:
            path = allowed_path(reference, self._settings, pointer)
        except EffaceError as error:
            self._errors += error.errors if isinstance(error, InvalidRequest) else [FieldError(pointer, error.detail)]
            return None
        if path.is_dir():
            self.classes[pointer] = {entry.name for entry in path.iterdir() if entry.is_dir()}
        return DataSource(name=name, uri=str(path))


def _check_classes(request: ErasureRequest, classes: dict[str, set[str]], errors: list[FieldError]) -> None:
    """Compare the class folders of the data sets with the target."""
    gone = set(request.target.names())
    for role in ("forget", "forget_test"):
        found = classes.get(f"/data/{role}", set())
        if found and not found <= gone and len(found) > 1:
            other = min(found - gone)
            errors.append(
                FieldError(f"/data/{role}", f"holds the class {other!r}, which is not to be forgotten; take it out")
            )
    retain = classes.get("/data/retain", set())
    if isinstance(request.target, ClassTarget) and retain & gone:
        errors.append(
            FieldError(
                "/data/retain", f"holds images of {min(retain & gone)!r}, which is to be forgotten; take them out"
            )
        )
    if isinstance(request.target, SubgroupTarget) and request.target.labels:
        unknown = retain - set(request.target.labels)
        if unknown:
            errors.append(
                FieldError("/data/retain", f"holds the class {min(unknown)!r}, which is not among the target's labels")
            )

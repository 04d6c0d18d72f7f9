"""A request file to a job specification, with no service to ask: data sets and models by path."""

from pathlib import Path

from shared.archives import ArchiveLimits, inspect_archive
from shared.errors import FieldError, InvalidRequest
from shared.needs import data_errors, reference_errors
from shared.roles import role_errors
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import LISTS, DataSource, DataSources, JobSpec, ModelSource
from shared.schemas.thresholds import resolve_thresholds
from shared.settings import Settings

ROLES = ("forget", "retain", "calibration", "proxy", "forget_test", "retain_test")


def resolve_paths(request: ErasureRequest, settings: Settings) -> JobSpec:
    """Return the specification of a request whose data sets and model are local (paths are relative to the working folder).

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    errors = data_errors(request)
    model = _model("/model", request.model, errors)
    reference = _model("/audit/reference", request.audit.reference, errors) if request.audit.reference else None
    errors += reference_errors(model, reference)
    roles = {role: _data(f"/data/{role}", role, getattr(request.data, role), errors) for role in ROLES}
    found = {
        role: [
            _data(f"/data/{role}/{number}/dataset", entry.name, entry.dataset, errors)
            for number, entry in enumerate(getattr(request.data, role))
        ]
        for role in LISTS
    }
    lists = {role: tuple(source for source in sources if source) for role, sources in found.items()}
    data = DataSources(**roles, **lists)
    errors += [] if errors else role_errors(request, data)
    if errors:
        raise InvalidRequest(errors)
    classes = {
        source.name: _classes(Path(source.uri), f"/data/evaluation/{i}/dataset", settings)
        for i, source in enumerate(lists["evaluation"])
    }
    return JobSpec(
        job_id="run",
        tenant_id="local",
        attempt=1,
        request=request,
        thresholds=resolve_thresholds(request, classes),
        model=model,
        reference=reference,
        data=data,
    )


def _model(pointer: str, reference: ModelReference, errors: list[FieldError]) -> ModelSource:
    text = reference.source or f"open_clip:{reference.architecture}/{reference.pretrained}"
    if reference.id is not None:
        detail = "is known to a service only; give a source such as local-dir:FOLDER"
        errors.append(FieldError(f"{pointer}/id", detail))
    elif text.startswith("local-dir:"):
        folder = Path(text.removeprefix("local-dir:")).expanduser().resolve()
        text = f"local-dir:{folder}"
        if not folder.is_dir():
            errors.append(FieldError(f"{pointer}/source", f"there is no folder {folder}"))
    elif not text.startswith(("hf-hub:", "open_clip:")):
        errors.append(FieldError(f"{pointer}/source", "must begin with local-dir: or hf-hub:"))
    return ModelSource(reference=text)


def _data(pointer: str, name: str, reference: str | None, errors: list[FieldError]) -> DataSource | None:
    if reference is None:
        return None
    path = Path(reference).expanduser().resolve()
    if not path.exists():
        errors.append(
            FieldError(pointer, f"there is nothing at {reference!r}; give the path of an archive or a class folder")
        )
    return DataSource(name=name, uri=str(path))


def _classes(path: Path, pointer: str, settings: Settings) -> set[str]:
    if path.is_dir():
        return {entry.name for entry in path.iterdir() if entry.is_dir()}
    try:
        return set(inspect_archive(path, ArchiveLimits.of(settings)).classes)
    except InvalidRequest as error:
        raise error.under(pointer) from error

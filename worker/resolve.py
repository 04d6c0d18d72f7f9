"""A request file to a job specification, with no service to ask: data sets and models by path.
Needs no torch.
"""

from pathlib import Path

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits
from shared.request_rules.references import (
    LOCAL_DIR,
    FoundData,
    LocalData,
    existing,
    hub_model,
    looked_up,
    model_in,
    source_of,
)
from shared.request_rules.resolution import Resolved, resolve
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import JobSpec, ModelSource
from shared.settings import Settings

UPLOADED = "is known to a service only; give a path"


def resolve_paths(request: ErasureRequest, settings: Settings) -> JobSpec:
    """Return the specification of a request whose data sets and model are local (paths are relative
    to the working folder).

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    return resolved_here(request, settings).spec(
        request, job_id="run", tenant_id="local", attempt=1
    )


def resolved_here(request: ErasureRequest, settings: Settings) -> Resolved:
    """Return what a request comes to on this machine.

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    return resolve(request, _PathFinder(ArchiveLimits.of(settings)))


class _PathFinder:
    def __init__(self, limits: ArchiveLimits) -> None:
        self._local = LocalData(limits)

    def model(self, pointer: str, reference: ModelReference) -> ModelSource:
        if reference.id is not None:
            detail = "is known to a service only; give a source such as local-dir:FOLDER"
            raise InvalidRequest.at(f"{pointer}/id", detail)
        text, pointer = source_of(reference, pointer)
        if text.startswith(LOCAL_DIR):
            return model_in(_path(text.removeprefix(LOCAL_DIR), pointer), pointer)
        return hub_model(text, pointer)

    def data(self, pointer: str, name: str, reference: str) -> FoundData:
        if reference.startswith("ds_") and not Path(reference).exists():
            raise InvalidRequest.at(pointer, f"{reference!r} {UPLOADED}")
        return self._local.at(_path(reference, pointer), pointer, name)


def _path(text: str, pointer: str) -> Path:
    return existing(looked_up(text, pointer, home=True), text, pointer)

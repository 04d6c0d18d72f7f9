"""Models: checkpoints that were uploaded, published by a job, or registered by reference."""

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from services.access import quotas
from services.catalog.references import model_reference
from services.pages import Page, page_of
from shared.errors import InvalidRequest, NotFound
from shared.files.uploaded_checkpoints import CheckpointFiles, is_model_file, unpack_checkpoint
from shared.ids import new_id
from shared.ports.object_storage import Storage, chunks_of, hashed
from shared.postgres.tables import Model
from shared.schemas.clip_config import ArchitectureName
from shared.schemas.model import ModelRegistration, ModelView
from shared.schemas.resolution import RequestWarning
from shared.schemas.spec import ModelSource
from shared.settings import Settings

_ARCHITECTURE = TypeAdapter[str](ArchitectureName)


Check = Callable[[Path, str, str | None, Path], CheckpointFiles]
"""What checks an uploaded checkpoint, as `unpack_checkpoint` does."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was checked and is not stored yet."""

    files: dict[str, Path]
    """By their names in the model's folder."""
    weights: tuple[str, ...]
    """Which of them hold the weights, in the order in which they are read."""
    architecture: str
    warnings: tuple[RequestWarning, ...]

    @property
    def size_bytes(self) -> int:
        """What it takes in the storage."""
        return sum(file.stat().st_size for file in self.files.values())


def check_upload(
    path: Path,
    *,
    filename: str,
    architecture: str | None,
    scratch: Path,
    check: Check = unpack_checkpoint,
) -> Checkpoint:
    """Check an uploaded checkpoint, and lay it out in `scratch`; see `unpack_checkpoint` for what
    it may be.

    Nothing is unpickled: the worker does that with `weights_only`. `check` may do its work in
    another process: of what it says nothing is believed that a file could have made up.

    Raises:
        InvalidRequest: it is none of these, or damaged.
    """
    name = _architecture(architecture)
    try:
        found = check(path, filename, name, scratch)
    except InvalidRequest as error:
        if error.errors[0].pointer:  # it names the field already
            raise
        raise error.under("/file") from error
    files = {name: scratch / name for name in found.unpacked if is_model_file(name)}
    if found.itself is not None and is_model_file(found.itself):
        files[found.itself] = path
    if not found.weights or not all(name in files for name in found.weights):
        raise InvalidRequest.at("/file", "holds no weights")
    if not all(stat.S_ISREG(file.lstat().st_mode) for file in files.values()):
        raise InvalidRequest.at("/file", "unpacks to something that is no file")
    warnings = tuple(RequestWarning.model_validate(row) for row in found.warnings)
    return Checkpoint(files, tuple(found.weights), found.architecture, warnings)


def store(
    storage: Storage, tenant_id: str, model_id: str, checkpoint: Checkpoint
) -> dict[str, object]:
    """Store a checked checkpoint, and return its row's values. The row comes after the bytes.

    Raises:
        Unavailable: the storage does not answer.
    """
    files, weights = checkpoint.files, checkpoint.weights
    digest = hashlib.sha256()
    for name in (
        *weights,
        *(name for name in files if name not in weights),
    ):  # the digest is of the weights in their order
        chunks = chunks_of(files[name])
        storage.put(
            f"{prefix(tenant_id, model_id)}/{name}",
            hashed(chunks, digest) if name in weights else chunks,
        )
    return {
        "id": model_id,
        "architecture": checkpoint.architecture,
        "reference": f"storage:{prefix(tenant_id, model_id)}",
        "digest": digest.hexdigest(),
        "size_bytes": sum(files[name].stat().st_size for name in weights),
        "warnings": [warning.model_dump() for warning in checkpoint.warnings],
    }


def prefix(tenant_id: str, model_id: str) -> str:
    """Return where the files of an uploaded model are."""
    return f"tenants/{tenant_id}/models/{model_id}"


def add(session: Session, *, tenant_id: str, name: str, values: dict[str, object]) -> ModelView:
    """Write the row of a stored model."""
    row = Model(tenant_id=tenant_id, name=name, **values)
    session.add(row)
    session.flush()
    session.refresh(row)
    return view(row)


def register(
    session: Session, tenant_id: str, registration: ModelRegistration, settings: Settings
) -> ModelView:
    """Register a model by reference.

    Raises:
        InvalidRequest: the operator does not allow the reference.
        StorageFull: the tenant has as many models as it may.
    """
    if registration.model.id is not None:
        raise InvalidRequest.at(
            "/model/id", "is registered already; give a source, or architecture and pretrained"
        )
    quotas.check_storage(session, tenant_id, "model", 0, settings)
    reference = model_reference(registration.model, settings, "/model")
    values: dict[str, object] = {
        "id": new_id("mdl"),
        "reference": reference,
        "architecture": registration.model.architecture,
    }
    return add(session, tenant_id=tenant_id, name=registration.name, values=values)


_SOURCE = (
    select(Model.reference, Model.id, Model.digest)
    .where(
        Model.id == bindparam("model_id"),
        Model.tenant_id == bindparam("tenant_id"),
        Model.deleted_at.is_(None),
    )
    .with_for_update(read=True, key_share=True)
)
"""The lock is the one that a job's reference to its model takes anyway; with it no model is
deleted before the job is there.
"""


def source(session: Session, tenant_id: str, model_id: str) -> ModelSource | None:
    """Return where a tenant's model comes from, or None. Every request asks: built once, without
    making an object of the row.
    """
    row = (
        session.connection()
        .execute(_SOURCE, {"model_id": model_id, "tenant_id": tenant_id})
        .one_or_none()
    )
    return ModelSource(reference=row.reference, id=row.id, digest=row.digest) if row else None


def get(session: Session, tenant_id: str, model_id: str, *, deleted: bool = False) -> ModelView:
    """Return one model; with `deleted` also one that was deleted.

    Raises:
        NotFound: the tenant has none of this id.
    """
    row = session.scalar(select(Model).where(Model.id == model_id, Model.tenant_id == tenant_id))
    if row is None or (row.deleted_at is not None and not deleted):
        raise NotFound("model", model_id)
    return view(row)


def list_page(
    session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20
) -> Page[ModelView]:
    """Return a page of a tenant's models, newest first."""
    live = select(Model).where(Model.deleted_at.is_(None))
    page = page_of(session, live, Model, tenant_id=tenant_id, after=after, limit=limit)
    return Page([view(row) for row in page.data], page.has_more)


def view(row: Model) -> ModelView:
    """Return a row as clients see it."""
    return ModelView(
        id=row.id,
        name=row.name,
        architecture=row.architecture,
        reference=row.reference,
        digest=row.digest,
        size_bytes=row.size_bytes,
        parent=row.parent_id,
        job=row.job_id,
        warnings=tuple(RequestWarning.model_validate(warning) for warning in row.warnings),
        created_at=row.created_at,
    )


def _architecture(text: str | None) -> str | None:
    try:
        return None if text is None else _ARCHITECTURE.validate_python(text)
    except ValidationError as error:
        raise InvalidRequest.at(
            "/architecture", "is no name of an architecture, such as ViT-B-32"
        ) from error

"""Models: checkpoints that were uploaded, published by a job, or registered by reference."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from services.pages import Page, page_of
from services.references import model_reference
from shared.archives import file_sha256
from shared.checkpoints import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    PICKLE_NAME,
    SAFETENSORS_NAME,
    check_safetensors,
    is_torch_file,
    read_config,
)
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_id
from shared.layouts import invalid
from shared.members import MemberLimits, is_archive, members
from shared.schemas.clip_config import ArchitectureName
from shared.schemas.model import ModelRegistration, ModelView
from shared.schemas.spec import ModelSource
from shared.settings import MIB, Settings
from shared.storage import Storage
from shared.tables import Model
from shared.tokenizer_files import TOKENIZER_NAMES

MEMBER_LIMITS = MemberLimits(members=1000, expanded_bytes=64 * 1024 * MIB, ratio=20)
"""Weights hardly compress; an archive that unpacks to more is taken for a bomb."""

_ARCHITECTURE = TypeAdapter[str](ArchitectureName)


def store_upload(
    storage: Storage, tenant_id: str, path: Path, *, filename: str, architecture: str | None, scratch: Path
) -> dict[str, object]:
    """Check an uploaded checkpoint, store it in open_clip's local-dir layout, and return its row's values.

    `path` is a zip or tar of a local-dir folder, a `.safetensors`, or a zip-format torch file; the last two need the
    name of an `architecture`. Nothing is unpickled here: the worker does that with `weights_only`.

    Raises:
        InvalidRequest: it is none of these, or damaged.
    """
    name = _architecture(architecture)
    try:
        files = _files_of(path, filename, name, scratch)
        config, _ = read_config(files[CONFIG_NAME])
    except InvalidRequest as error:
        if error.errors[0].pointer:  # it names the field already
            raise
        raise error.under("/file") from error
    weights = files[SAFETENSORS_NAME] if SAFETENSORS_NAME in files else files[PICKLE_NAME]
    model_id = new_id("mdl")
    for file_name, file in files.items():
        storage.put(f"{prefix(tenant_id, model_id)}/{file_name}", file)
    return {
        "id": model_id,
        "architecture": name or config.name(),
        "reference": f"storage:{prefix(tenant_id, model_id)}",
        "digest": file_sha256(weights),
        "size_bytes": weights.stat().st_size,
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


def register(session: Session, tenant_id: str, registration: ModelRegistration, settings: Settings) -> ModelView:
    """Register a model by reference.

    Raises:
        InvalidRequest: the operator does not allow the reference.
    """
    if registration.model.id is not None:
        raise InvalidRequest.at("/model/id", "is registered already; give a source, or architecture and pretrained")
    reference = model_reference(registration.model, settings, "/model")
    values: dict[str, object] = {
        "id": new_id("mdl"),
        "reference": reference,
        "architecture": registration.model.architecture,
    }
    return add(session, tenant_id=tenant_id, name=registration.name, values=values)


_SOURCE = (
    select(Model.reference, Model.id, Model.digest)
    .where(Model.id == bindparam("model_id"), Model.tenant_id == bindparam("tenant_id"), Model.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True)
)
"""The lock is the one that a job's reference to its model takes anyway; with it no model is deleted before the job is there."""


def source(session: Session, tenant_id: str, model_id: str) -> ModelSource | None:
    """Return where a tenant's model comes from, or None. Every request asks: built once, without making an object of the row."""
    row = session.connection().execute(_SOURCE, {"model_id": model_id, "tenant_id": tenant_id}).one_or_none()
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


def list_page(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[ModelView]:
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
        created_at=row.created_at,
    )


def _architecture(text: str | None) -> str | None:
    try:
        return None if text is None else _ARCHITECTURE.validate_python(text)
    except ValidationError as error:
        raise InvalidRequest.at("/architecture", "is no name of an architecture, such as ViT-B-32") from error


def _files_of(path: Path, filename: str, architecture: str | None, scratch: Path) -> dict[str, Path]:
    """Return config and weights by their names in a local-dir folder."""
    torch_file = is_torch_file(path)
    if not torch_file and is_archive(path):
        files = _unpacked(path, scratch)
        if CONFIG_NAME not in files:
            raise invalid(f"the archive holds no {CONFIG_NAME}; pack a folder in open_clip's local-dir layout")
        if SAFETENSORS_NAME not in files and PICKLE_NAME not in files:
            raise invalid(f"the archive holds no weights; add {SAFETENSORS_NAME}")
    elif torch_file or filename.endswith(".safetensors"):
        if architecture is None:
            raise InvalidRequest.at(
                "/architecture", "a bare checkpoint needs the architecture that open_clip knows it by"
            )
        config = scratch / CONFIG_NAME
        config.write_text(json.dumps({"architecture": architecture}))
        files = {CONFIG_NAME: config, PICKLE_NAME if torch_file else SAFETENSORS_NAME: path}
    else:
        raise invalid("is neither .safetensors, nor a torch file (zip format), nor a zip or tar of a local-dir folder")
    if SAFETENSORS_NAME in files:
        check_safetensors(files[SAFETENSORS_NAME])
    elif not is_torch_file(files[PICKLE_NAME]):
        raise invalid(f"{PICKLE_NAME} is not a torch file in zip format, as torch.save writes it since 1.6")
    return files


def _unpacked(path: Path, scratch: Path) -> dict[str, Path]:
    """Copy the files that matter out of an archive, by their last name alone, so that no path can leave."""
    wanted = {CONFIG_NAME, SAFETENSORS_NAME, PICKLE_NAME} | TOKENIZER_NAMES
    files: dict[str, Path] = {}
    for member in members(path, MEMBER_LIMITS):
        name = member.name.name
        if name not in wanted:
            continue
        if name in files:
            raise invalid(f"the archive holds {name} twice; pack the folder of one model")
        if name == CONFIG_NAME and member.size > MAX_CONFIG_BYTES:
            raise invalid(f"{name} has {member.size} bytes; at most {MAX_CONFIG_BYTES} are taken")
        files[name] = scratch / name
        member.copy(files[name])
    return files

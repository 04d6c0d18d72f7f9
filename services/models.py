"""Models: checkpoints that were uploaded, published by a job, or registered by reference."""

import gzip
import hashlib
import json
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.pages import Page, page_of
from services.references import model_reference
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_id
from shared.schemas.model import ModelRegistration, ModelView
from shared.settings import Settings
from shared.storage import Storage
from shared.tables import Model

CONFIG_NAME = "open_clip_config.json"
SAFETENSORS_NAME = "open_clip_model.safetensors"
PICKLE_NAME = "open_clip_pytorch_model.bin"
TOKENIZER_NAMES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt"}
    | {"spiece.model", "sentencepiece.bpe.model"}
)
"""Files of a Hugging Face tokenizer, which lie beside the weights of some models."""
MAX_CONFIG_BYTES = 1024 * 1024
MAX_UNPACKED_RATIO = 20
"""Weights hardly compress; an archive that unpacks to more is taken for a bomb."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
COPY_BYTES = 8 * 1024 * 1024
MAX_HEADER_BYTES = 100 * 1024 * 1024


def store_upload(
    storage: Storage, tenant_id: str, path: Path, *, filename: str, architecture: str | None, scratch: Path
) -> dict[str, object]:
    """Check an uploaded checkpoint, store it in open_clip's local-dir layout, and return its row's values.

    `path` is a zip or tar of a local-dir folder, a `.safetensors`, or a zip-format torch file; the last two need the
    name of an `architecture`. Nothing is unpickled here: the worker does that with `weights_only`.

    Raises:
        InvalidRequest: it is none of these, or damaged.
    """
    files = _files_of(path, filename, architecture, scratch)
    weights = files[SAFETENSORS_NAME] if SAFETENSORS_NAME in files else files[PICKLE_NAME]
    model_id = new_id("mdl")
    for name, file in files.items():
        storage.put(f"{prefix(tenant_id, model_id)}/{name}", file)
    return {
        "id": model_id,
        "architecture": architecture or _architecture_of(files[CONFIG_NAME]),
        "reference": f"storage:{prefix(tenant_id, model_id)}",
        "digest": _sha256(weights),
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


def find(session: Session, tenant_id: str, model_id: str) -> Model | None:
    """Return a tenant's model, or None."""
    return session.scalar(select(Model).where(Model.id == model_id, Model.tenant_id == tenant_id))


def get(session: Session, tenant_id: str, model_id: str) -> ModelView:
    """Return one model.

    Raises:
        NotFound: the tenant has none of this id.
    """
    row = find(session, tenant_id, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return view(row)


def list_page(session: Session, tenant_id: str, *, after: str | None = None, limit: int = 20) -> Page[ModelView]:
    """Return a page of a tenant's models, newest first."""
    page = page_of(session, select(Model), Model, tenant_id=tenant_id, after=after, limit=limit)
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


def _files_of(path: Path, filename: str, architecture: str | None, scratch: Path) -> dict[str, Path]:
    """Return config and weights by their names in a local-dir folder."""
    torch_file = _is_torch_file(path)
    if not torch_file and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        try:
            files = _unpacked(path, scratch)
        except _DAMAGE as error:
            raise _bad(f"the archive is damaged or encrypted ({error}); pack it again") from error
        if CONFIG_NAME not in files:
            raise _bad(f"the archive holds no {CONFIG_NAME}; pack a folder in open_clip's local-dir layout")
        if SAFETENSORS_NAME not in files and PICKLE_NAME not in files:
            raise _bad(f"the archive holds no weights; add {SAFETENSORS_NAME}")
    elif torch_file or filename.endswith(".safetensors"):
        if architecture is None:
            raise InvalidRequest.at(
                "/architecture", "a bare checkpoint needs the architecture that open_clip knows it by"
            )
        config = scratch / CONFIG_NAME
        config.write_text(json.dumps({"architecture": architecture}))
        files = {CONFIG_NAME: config, PICKLE_NAME if torch_file else SAFETENSORS_NAME: path}
    else:
        raise _bad("is neither .safetensors, nor a torch file (zip format), nor a zip or tar of a local-dir folder")
    if SAFETENSORS_NAME in files:
        _check_safetensors(files[SAFETENSORS_NAME])
    elif not _is_torch_file(files[PICKLE_NAME]):
        raise _bad(f"{PICKLE_NAME} is not a torch file in zip format, as torch.save writes it since 1.6")
    _architecture_of(files[CONFIG_NAME])
    return files


def _unpacked(path: Path, scratch: Path) -> dict[str, Path]:
    """Copy the regular files that matter out of an archive, by their last name alone, so that no path can leave."""
    wanted = {CONFIG_NAME, SAFETENSORS_NAME, PICKLE_NAME} | TOKENIZER_NAMES
    files: dict[str, Path] = {}
    limit = MAX_UNPACKED_RATIO * path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename).name
                if name in wanted and not entry.is_dir():
                    with archive.open(entry) as source:
                        files[name] = _copied(source, scratch / name, entry.file_size, limit)
    else:
        with tarfile.open(path) as archive_file:
            for member in archive_file:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile() and (source_file := archive_file.extractfile(member)):
                    files[name] = _copied(source_file, scratch / name, member.size, limit)
    return files


def _copied(source: IO[bytes], target: Path, size: int, limit: int) -> Path:
    limit = min(limit, MAX_CONFIG_BYTES) if target.name == CONFIG_NAME else limit
    if size > limit:
        raise _bad(f"{target.name} unpacks to {size} bytes; at most {limit} are taken")
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, COPY_BYTES)
    return target


def _is_torch_file(path: Path) -> bool:
    """True for what `torch.save` writes since version 1.6: a zip with a pickle in it, which is not opened here."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _check_safetensors(path: Path) -> None:
    """Read the header alone: its length (8 bytes), then JSON whose offsets must fit the file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not ends or max(ends) + 8 + length != path.stat().st_size:
            raise ValueError("it is cut off, or holds no tensor")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, RecursionError) as error:
        raise _bad(f"{path.name} is not a sound safetensors file ({error}); upload it again") from error


def _architecture_of(config: Path) -> str:
    """Return the architecture's name for people; open_clip's config has none, so the sizes serve."""
    try:
        content = json.loads(config.read_text())
        if "architecture" in content:
            return str(content["architecture"])
        vision = content["model_cfg"]["vision_cfg"]
        kind = "RN" if isinstance(vision.get("layers"), list) else f"ViT/{vision.get('patch_size')}"
        return f"{kind} {vision.get('width')}x{vision.get('layers')} @{vision.get('image_size')}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(f"{CONFIG_NAME} is not one of open_clip's: it must be JSON with model_cfg.vision_cfg") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bad(detail: str) -> InvalidRequest:
    return InvalidRequest.at("/file", detail)

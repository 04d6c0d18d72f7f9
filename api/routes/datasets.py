"""Data sets: archives of images that jobs refer to."""

from functools import partial

from fastapi import APIRouter, Response

from api.dependencies import DatasetReader, DatasetWriter, PartsDep, SessionDep
from api.idempotency import SenderDep, answered, respond
from api.listing import After, Limit, Listing
from api.problems import responses
from api.uploads import REFUSED_UPLOADS, UPLOAD_BODY, ReceivedUpload
from services import datasets
from services.idempotency import Answer, once
from shared.errors import Conflict, IdempotencyKeyReused, NotFound, TooLarge
from shared.schemas.dataset import DatasetView

router = APIRouter(prefix="/datasets", tags=["datasets"])

_PURGE = {
    "name": "purge_after_job",
    "in": "query",
    "schema": {"type": "boolean"},
    "description": "true: purge it with the last job that uses it; false: keep it for the retention period; "
    "by default it is purged if a job is to forget it",
}
_SKIP = {
    "name": "skip_invalid",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "true: leave out members that cannot be used, such as broken images, and count them in the data set; "
    "by default the data set is refused, with the names of up to 20 of them",
}
_BODY = UPLOAD_BODY | {"parameters": [*UPLOAD_BODY["parameters"], _PURGE, _SKIP]}


@router.post(
    "",
    status_code=201,
    summary="Upload a data set",
    response_model=DatasetView,
    openapi_extra=_BODY,
    responses=responses(TooLarge, Conflict, IdempotencyKeyReused, also=REFUSED_UPLOADS),
)
def add(
    caller: DatasetWriter, upload: ReceivedUpload, session: SessionDep, parts: PartsDep, sender: SenderDep
) -> Response:
    """Take a zip or tar of `<class>/<image>`, of images with a table of labels, or of WebDataset shards; a shard; or Parquet.

    It is the body, or the field `file` of a form. Every image is decoded and every member checked before the data set is accepted.
    """
    name, purge_after_job, skip_invalid = upload.name, upload.flag("purge_after_job"), upload.flag("skip_invalid")
    call = sender.call(upload.content)
    if (earlier := answered(parts, call)) is not None:
        return respond(earlier)
    summary = datasets.inspect(upload.path, parts.settings, skip_invalid=bool(skip_invalid))
    stored = datasets.store(parts.storage, caller.tenant_id, upload.path, parts.settings)

    def added() -> Answer:
        view = datasets.add(
            session,
            tenant_id=caller.tenant_id,
            stored=stored,
            name=name,
            size_bytes=upload.path.stat().st_size,
            summary=summary,
            purge_after_job=purge_after_job,
        )
        return Answer(201, view.model_dump_json(), {})

    undo = partial(parts.storage.delete, stored.key)
    return respond(once(session, call, added, parts.settings.idempotency_seconds, undo=undo))


@router.get("", summary="List data sets, newest first", responses=responses())
def list_datasets(
    session: SessionDep, caller: DatasetReader, after: After = None, limit: Limit = 20
) -> Listing[DatasetView]:
    """Return a page of data sets."""
    page = datasets.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{dataset_id}", summary="Look at a data set", responses=responses(NotFound))
def get_dataset(dataset_id: str, session: SessionDep, caller: DatasetReader) -> DatasetView:
    """Return a data set, with what was understood of it: its layout, its classes, what was left out, and warnings."""
    return datasets.get(session, caller.tenant_id, dataset_id)

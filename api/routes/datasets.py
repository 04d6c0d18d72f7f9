"""Data sets: archives of images that jobs refer to."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import BeginDep, DatasetReader, DatasetWriter, PartsDep, SessionDep
from api.idempotency import SenderDep, respond
from api.json_route import Route
from api.listing import After, Limit, Listing
from api.problems import responses
from api.uploads import REFUSED_UPLOADS, UPLOAD_BODY, UPLOAD_ERRORS, Upload, performed, received
from services.access.idempotency import Answer
from services.catalog import datasets
from services.catalog.uploads import Uploads
from services.jobs import data_used, outbox
from services.purging import datasets as dataset_purge
from shared.errors import Conflict, NotFound
from shared.schemas.dataset import DatasetView
from shared.schemas.purge import DatasetPurge

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=Route)

_PURGE = {
    "name": "purge_after_job",
    "in": "query",
    "schema": {"type": "boolean"},
    "description": "true: purge it with the last job that uses it; false: keep it for the "
    "retention period; "
    "by default it is purged if a job is to forget it",
}
_SKIP = {
    "name": "skip_invalid",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "true: leave out members that cannot be used, such as broken images, and count "
    "them in the data set; "
    "by default the data set is refused, with the names of up to 20 of them",
}


async def _received(request: Request) -> AsyncIterator[Upload]:
    async with received(request, "dataset") as upload:
        yield upload


ReceivedUpload = Annotated[Upload, Depends(_received, scope="function")]

_BODY = UPLOAD_BODY | {"parameters": [*UPLOAD_BODY["parameters"], _PURGE, _SKIP]}


@router.post(
    "",
    status_code=201,
    summary="Upload a data set",
    response_model=DatasetView,
    openapi_extra=_BODY,
    responses=responses(*UPLOAD_ERRORS, also=REFUSED_UPLOADS),
)
async def add(
    caller: DatasetWriter,
    upload: ReceivedUpload,
    request: Request,
    begin: BeginDep,
    sender: SenderDep,
) -> Response:
    """Take a zip or tar of `<class>/<image>`, of images with a table of labels, or of WebDataset
    shards; a shard; or Parquet.

    It is the body, or the field `file` of a form. Every image is decoded and every member
    checked before the data set is accepted."""
    name, purge_after_job, skip_invalid = (
        upload.name,
        upload.flag("purge_after_job"),
        upload.flag("skip_invalid"),
    )
    call = sender.call(upload.content)

    def added(uploads: Uploads) -> Answer:
        return uploads.add_dataset(
            upload.file,
            call,
            name=name,
            purge_after_job=purge_after_job,
            skip_invalid=bool(skip_invalid),
        )

    return respond(await performed(request, caller, begin, added))


@router.get("", summary="List data sets, newest first", responses=responses())
def list_datasets(
    session: SessionDep, caller: DatasetReader, after: After = None, limit: Limit = 20
) -> Listing[DatasetView]:
    """Return a page of data sets."""
    page = datasets.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{dataset_id}", summary="Look at a data set", responses=responses(NotFound))
def get_dataset(dataset_id: str, session: SessionDep, caller: DatasetReader) -> DatasetView:
    """Return a data set, with what was understood of it: its layout, its classes, what was left
    out, and warnings.
    """
    return datasets.get(session, caller.tenant_id, dataset_id)


@router.delete("/{dataset_id}", summary="Purge a data set", responses=responses(NotFound, Conflict))
def delete_dataset(
    dataset_id: str, begin: BeginDep, caller: DatasetWriter, parts: PartsDep
) -> DatasetPurge:
    """Purge a data set at once: its key is destroyed, its object deleted. The answer is the
    receipt; idempotent.

    409 where unfinished jobs use it: cancel them first.
    """
    with begin() as session:
        doomed = dataset_purge.begin_deletion(session, caller.tenant_id, dataset_id, parts.settings)
    if doomed is not None:
        deleted = dataset_purge.delete(parts.storage, doomed)
        with begin() as session:
            dataset_purge.finish(session, doomed, deleted)
            outbox.owe(session, data_used.users_of(session, dataset_id))
    with begin() as session:
        return dataset_purge.receipt(session, dataset_id)

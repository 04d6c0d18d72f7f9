"""Data sets: what is kept until when and why, what was purged, uploads."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.console import PREFIX
from api.console.page import Page, go
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, DatasetReader, DatasetWriter, PartsDep
from api.parts import Parts
from api.routes.datasets import delete_dataset
from api.uploads import Upload, performed, received, text_parameter
from services.access.idempotency import Answer
from services.catalog import datasets
from services.catalog.uploads import Uploads
from services.purging import dataset_keeping
from shared.errors import Conflict, NotFound

router = APIRouter(prefix="/data-sets", route_class=Page)

PAGE = 50
FIELDS = {
    "parameters": [
        text_parameter("purge_after_job", "delete it with the last erasure that uses it")
    ]
}
"""What the form holds beside the file."""


async def _received(request: Request) -> AsyncIterator[Upload]:
    async with received(request, "dataset") as upload:
        yield upload


Received = Annotated[Upload, Depends(_received, scope="function")]


@router.get("")
def list_datasets(
    request: Request, begin: BeginDep, parts: PartsDep, caller: DatasetReader
) -> Response:
    """Show what is kept, and what was purged."""
    after = request.query_params.get("after") or None
    with begin() as session:
        page = datasets.list_page(session, caller.tenant_id, after=after, limit=PAGE)
        kept = dataset_keeping.of(session, page.data, parts.settings)
        receipts = dataset_keeping.receipts(session, caller.tenant_id)
    return render(
        request,
        "datasets.html",
        datasets=page.data,
        has_more=page.has_more,
        after=after,
        kept=kept,
        receipts=receipts,
        done=request.query_params.get("done", ""),
    )


@router.post("", openapi_extra=FIELDS)
async def upload(
    request: Request, caller: DatasetWriter, sent: Received, begin: BeginDep
) -> Response:
    """Take an archive, and show it; a script that asks for JSON is answered with it."""
    purge = sent.flag("purge_after_job")

    def added(uploads: Uploads) -> Answer:
        return uploads.add_dataset(sent.file, None, name=sent.name, purge_after_job=purge)

    answer = await performed(request, caller, begin, added)
    if "application/json" in request.headers.get("accept", ""):
        return Response(answer.body, answer.status, media_type="application/json")
    return go(f"{PREFIX}/data-sets?done=uploaded")


@router.get("/{dataset_id}")
def dataset(
    dataset_id: str, request: Request, begin: BeginDep, parts: PartsDep, caller: DatasetReader
) -> Response:
    """Show one data set, or the receipt of what is left of it."""
    return _one(request, begin, parts, caller.tenant_id, dataset_id)


@router.post("/{dataset_id}/delete")
def delete(
    dataset_id: str, request: Request, begin: BeginDep, parts: PartsDep, caller: DatasetWriter
) -> Response:
    """Purge a data set at once."""
    try:
        delete_dataset(dataset_id, begin, caller, parts)
    except Conflict as error:
        return _one(
            request, begin, parts, caller.tenant_id, dataset_id, problem=error.detail, status=409
        )
    return go(f"{PREFIX}/data-sets/{dataset_id}?done=dataset_deleted")


def _one(
    request: Request,
    begin: Begin,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    *,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    done = request.query_params.get("done", "")
    with begin() as session:
        receipt = dataset_keeping.receipt(session, tenant_id, dataset_id)
        found = datasets.find(session, tenant_id, dataset_id)
        view = datasets.view(found) if found is not None else None
        kept = dataset_keeping.of(session, [view], parts.settings)[dataset_id] if view else None
    if view is None and receipt is None:
        raise NotFound("dataset", dataset_id)
    known = {
        "dataset": view,
        "receipt": receipt,
        "kept": kept,
        "problem": problem,
        "done": done,
        "id": dataset_id,
    }
    return render(request, "dataset.html", status=status, **known)

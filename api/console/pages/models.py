"""Models: their lines of descent, who has fetched which, and what is in the way of deleting one."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.console import PREFIX
from api.console.page import Page, go
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, ModelReader, ModelWriter, PartsDep
from api.uploads import Upload, performed, received
from services.access.idempotency import Answer
from services.catalog import lineage, models
from services.catalog.uploads import Uploads
from services.jobs import weight_downloads
from services.purging import models as model_purge
from shared.errors import Conflict
from shared.files.uploaded_checkpoints import EXPANSION

router = APIRouter(prefix="/models", route_class=Page)


async def _received(request: Request) -> AsyncIterator[Upload]:
    async with received(request, "model") as upload:
        yield upload


Received = Annotated[Upload, Depends(_received, scope="function")]


@router.get("")
def list_models(request: Request, begin: BeginDep, caller: ModelReader) -> Response:
    """Show the models as trees."""
    with begin() as session:
        trees = lineage.trees(session, caller.tenant_id)
    return render(request, "models.html", trees=trees, done=request.query_params.get("done", ""))


@router.post("")
async def upload(
    request: Request, caller: ModelWriter, sent: Received, begin: BeginDep
) -> Response:
    """Take a checkpoint, and show it; a script that asks for JSON is answered with it."""
    room = sent.share.hold_spare(EXPANSION * sent.file.size_bytes)

    def added(uploads: Uploads) -> Answer:
        return uploads.add_model(
            sent.file, None, name=sent.name, architecture=None, unpacked_bytes=room
        )

    answer = await performed(request, caller, begin, added)
    if "application/json" in request.headers.get("accept", ""):
        return Response(answer.body, answer.status, media_type="application/json")
    return go(f"{PREFIX}/models?done=model_uploaded")


@router.get("/{model_id}")
def model(model_id: str, request: Request, begin: BeginDep, caller: ModelReader) -> Response:
    """Show one model."""
    return _one(request, begin, caller.tenant_id, model_id)


@router.get("/{model_id}/delete")
def ask(model_id: str, request: Request, begin: BeginDep, caller: ModelWriter) -> Response:
    """Say what depends on a model before it is deleted."""
    return _one(request, begin, caller.tenant_id, model_id, "model_delete.html")


@router.post("/{model_id}/delete")
def delete(
    model_id: str, request: Request, begin: BeginDep, parts: PartsDep, caller: ModelWriter
) -> Response:
    """Delete a model and its files."""
    try:
        with begin() as session:
            doomed = model_purge.begin(session, caller.tenant_id, model_id)
    except Conflict as error:
        show = partial(_one, request, begin, caller.tenant_id, model_id, "model_delete.html")
        return show(problem=error.detail, status=409)
    deleted = model_purge.delete(parts.storage, doomed)
    with begin() as session:
        model_purge.finish(session, doomed, deleted)
    return go(f"{PREFIX}/models?done=model_deleted")


def _one(
    request: Request,
    begin: Begin,
    tenant_id: str,
    model_id: str,
    template: str = "model.html",
    *,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    with begin() as session:
        found = models.get(session, tenant_id, model_id)
        known = {
            "model": found,
            "children": lineage.children_of(session, tenant_id, model_id),
            "users": lineage.users_of(session, tenant_id, model_id),
            "fetches": weight_downloads.fetches(session, tenant_id, model_id),
        }
    return render(request, template, status=status, problem=problem, **known)

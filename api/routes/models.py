"""Models: checkpoints that are uploaded, or registered where they are."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import Begin, BeginDep, ModelReader, ModelWriter, PartsDep, SessionDep
from api.examples import MODEL_REGISTRATION
from api.idempotency import SenderDep, respond
from api.json_route import Route, StrictRequest, is_json, parse
from api.listing import After, Limit, Listing
from api.problems import responses
from api.uploads import (
    REFUSED_UPLOADS,
    UPLOAD_BODY,
    UPLOAD_ERRORS,
    Upload,
    performed,
    received,
    text_parameter,
)
from services.access.idempotency import Answer, Call, once
from services.catalog import models
from services.catalog.uploads import Uploads
from services.jobs import weight_downloads
from services.purging import models as model_purge
from shared.errors import Conflict, NotFound
from shared.files.uploaded_checkpoints import EXPANSION
from shared.schemas.model import FetchView, ModelRegistration, ModelView
from shared.schemas.purge import ModelPurge
from shared.settings import Settings

router = APIRouter(prefix="/models", tags=["models"], route_class=Route)


async def _sent(request: Request) -> AsyncIterator[ModelRegistration | Upload]:
    """Read a registration from a JSON body; any other body is an upload."""
    if is_json(request):
        yield await parse(StrictRequest(request.scope, request.receive), ModelRegistration)
    else:
        async with received(request, "model") as upload:
            yield upload


Sent = Annotated[ModelRegistration | Upload, Depends(_sent, scope="function")]

_BODY = {
    "requestBody": {
        "required": True,
        "content": UPLOAD_BODY["requestBody"]["content"]
        | {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ModelRegistration"},
                "example": MODEL_REGISTRATION,
            }
        },
    },
    "parameters": [
        *UPLOAD_BODY["parameters"],
        text_parameter("architecture", "open_clip's name of a bare checkpoint"),
    ],
}


@router.post(
    "",
    status_code=201,
    summary="Upload or register a model",
    response_model=ModelView,
    openapi_extra=_BODY,
    responses=responses(*UPLOAD_ERRORS, also=REFUSED_UPLOADS),
)
async def add(
    caller: ModelWriter,
    sent: Sent,
    request: Request,
    begin: BeginDep,
    parts: PartsDep,
    sender: SenderDep,
) -> Response:
    """Take a checkpoint, or a JSON body that says where one is.

    An upload is a zip or tar of a folder in open_clip's local-dir layout, or a `.safetensors` or
    torch file with `architecture`, open_clip's name for it. `filename` tells the kind of a raw
    body."""
    if isinstance(sent, ModelRegistration):
        call = sender.call(partial(sent.model_dump, mode="json", exclude_unset=True))
        registered = partial(_registered, begin, caller.tenant_id, sent, call, parts.settings)
        return respond(await run_in_threadpool(registered))
    name, architecture = sent.name, sent.fields.get("architecture")
    call = sender.call(sent.content)
    room = sent.share.hold_spare(EXPANSION * sent.file.size_bytes)

    def added(uploads: Uploads) -> Answer:
        return uploads.add_model(
            sent.file, call, name=name, architecture=architecture, unpacked_bytes=room
        )

    return respond(await performed(request, caller, begin, added))


def _registered(
    begin: Begin,
    tenant_id: str,
    registration: ModelRegistration,
    call: Call | None,
    settings: Settings,
) -> Answer:
    with begin() as session:

        def made() -> Answer:
            model = models.register(session, tenant_id, registration, settings)
            return Answer(201, model.model_dump_json(), {})

        return once(session, call, made, settings.idempotency_seconds)


@router.get("", summary="List models, newest first", responses=responses())
def list_models(
    session: SessionDep, caller: ModelReader, after: After = None, limit: Limit = 20
) -> Listing[ModelView]:
    """Return a page of models: uploaded, registered and published ones."""
    page = models.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{model_id}", summary="Look at a model", responses=responses(NotFound))
def get_model(model_id: str, session: SessionDep, caller: ModelReader) -> ModelView:
    """Return a model."""
    return models.get(session, caller.tenant_id, model_id)


@router.delete(
    "/{model_id}", summary="Delete a model and its files", responses=responses(NotFound, Conflict)
)
def delete_model(
    model_id: str, begin: BeginDep, caller: ModelWriter, parts: PartsDep
) -> ModelPurge:
    """Delete a model: its files go at once, and no job can use it any more. The answer is the
    receipt; idempotent.

    Jobs, certificates and models that were made from it go on naming its id. 409 where
    unfinished jobs use it."""
    with begin() as session:
        doomed = model_purge.begin(session, caller.tenant_id, model_id)
    deleted = model_purge.delete(parts.storage, doomed)
    with begin() as session:
        return model_purge.finish(session, doomed, deleted)


@router.get(
    "/{model_id}/fetches",
    summary="Who has fetched a model's weights",
    responses=responses(NotFound),
)
def fetches(model_id: str, session: SessionDep, caller: ModelReader) -> Listing[FetchView]:
    """Return the API keys that were given the published weights, those first that fetched them
    last.
    """
    return Listing(
        data=weight_downloads.fetches(session, caller.tenant_id, model_id), has_more=False
    )

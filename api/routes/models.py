"""Models: checkpoints that are uploaded, or registered where they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import BeginDep, ModelReader, ModelWriter, PartsDep, SessionDep
from api.examples import MODEL_REGISTRATION
from api.idempotency import SenderDep, answered, respond
from api.json_route import StrictRequest, is_json, parse
from api.listing import After, Limit, Listing
from api.problems import responses
from api.uploads import REFUSED_UPLOADS, UPLOAD_BODY, Upload, received, text_parameter
from services import model_purge, models, registers
from services.idempotency import Answer, once
from shared.errors import Conflict, IdempotencyKeyReused, NotFound, TooLarge
from shared.schemas.model import FetchView, ModelRegistration, ModelView
from shared.schemas.purge import ModelPurge

router = APIRouter(prefix="/models", tags=["models"])


async def _sent(request: Request) -> AsyncIterator[ModelRegistration | Upload]:
    """Read a registration from a JSON body; any other body is an upload."""
    if is_json(request):
        yield await parse(StrictRequest(request.scope, request.receive), ModelRegistration)
    else:
        async with asynccontextmanager(received)(request) as upload:
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
    "parameters": [*UPLOAD_BODY["parameters"], text_parameter("architecture", "open_clip's name of a bare checkpoint")],
}


@router.post(
    "",
    status_code=201,
    summary="Upload or register a model",
    response_model=ModelView,
    openapi_extra=_BODY,
    responses=responses(TooLarge, Conflict, IdempotencyKeyReused, also=REFUSED_UPLOADS),
)
def add(caller: ModelWriter, sent: Sent, session: SessionDep, parts: PartsDep, sender: SenderDep) -> Response:
    """Take a checkpoint, or a JSON body that says where one is.

    An upload is a zip or tar of a folder in open_clip's local-dir layout, or a `.safetensors` or torch file with
    `architecture`, open_clip's name for it. `filename` tells the kind of a raw body.
    """
    if isinstance(sent, ModelRegistration):
        call = sender.call(partial(sent.model_dump, mode="json", exclude_unset=True))
        registered = partial(models.register, session, caller.tenant_id, sent, parts.settings)
        return respond(once(session, call, lambda: _made(registered()), parts.settings.idempotency_seconds))
    name = sent.name
    call = sender.call(sent.content)
    if (earlier := answered(parts, call)) is not None:
        return respond(earlier)
    values = models.store_upload(
        parts.storage,
        caller.tenant_id,
        sent.path,
        filename=sent.filename,
        architecture=sent.fields.get("architecture"),
        scratch=sent.folder,
    )
    stored = partial(models.add, session, tenant_id=caller.tenant_id, name=name, values=values)
    undo = partial(parts.storage.delete, models.prefix(caller.tenant_id, str(values["id"])))
    return respond(once(session, call, lambda: _made(stored()), parts.settings.idempotency_seconds, undo=undo))


def _made(model: ModelView) -> Answer:
    return Answer(201, model.model_dump_json(), {})


@router.get("", summary="List models, newest first", responses=responses())
def list_models(session: SessionDep, caller: ModelReader, after: After = None, limit: Limit = 20) -> Listing[ModelView]:
    """Return a page of models: uploaded, registered and published ones."""
    page = models.list_page(session, caller.tenant_id, after=after, limit=limit)
    return Listing(data=page.data, has_more=page.has_more)


@router.get("/{model_id}", summary="Look at a model", responses=responses(NotFound))
def get_model(model_id: str, session: SessionDep, caller: ModelReader) -> ModelView:
    """Return a model."""
    return models.get(session, caller.tenant_id, model_id)


@router.delete("/{model_id}", summary="Delete a model and its files", responses=responses(NotFound, Conflict))
def delete_model(model_id: str, begin: BeginDep, caller: ModelWriter, parts: PartsDep) -> ModelPurge:
    """Delete a model: its files go at once, and no job can use it any more. The answer is the receipt; idempotent.

    Jobs, certificates and models that were made from it go on naming its id. 409 where unfinished jobs use it.
    """
    with begin() as session:
        doomed = model_purge.begin(session, caller.tenant_id, model_id)
    deleted = model_purge.delete(parts.storage, doomed)
    with begin() as session:
        return model_purge.finish(session, doomed, deleted)


@router.get("/{model_id}/fetches", summary="Who has fetched a model's weights", responses=responses(NotFound))
def fetches(model_id: str, session: SessionDep, caller: ModelReader) -> Listing[FetchView]:
    """Return the API keys that were given the published weights, those first that fetched them last."""
    return Listing(data=registers.fetches(session, caller.tenant_id, model_id), has_more=False)

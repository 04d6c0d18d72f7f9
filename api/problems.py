"""Every error as `application/problem+json` (RFC 9457). Nothing else in the package builds an
error response.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.conditional import HEAD
from shared.errors import (
    MAX_TOLD,
    Conflict,
    EffaceError,
    FieldError,
    Forbidden,
    Gone,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    StorageFull,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
)
from shared.ports.object_storage import ObjectMissing
from shared.schemas.model import ModelRegistration
from shared.schemas.validation_errors import cut, field_errors

MEDIA_TYPE = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Registered by draft-ietf-httpapi-ratelimit-headers; every other type is ours."""
MAX_DETAIL = 4000
"""Characters of a sentence: an answer must not grow with the request."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

STATUS: dict[type[EffaceError], HTTPStatus] = {
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Gone: HTTPStatus.GONE,
    IdempotencyKeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    StorageFull: HTTPStatus.FORBIDDEN,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

HEADERS: dict[type[EffaceError], dict[str, str]] = {
    Unauthenticated: {"WWW-Authenticate": 'Bearer realm="efface"'},
}

log = structlog.get_logger()


class WrongField(BaseModel):
    """One wrong field of a request."""

    detail: str = Field(
        examples=["class 'dog' is not among the labels; add it, or correct its spelling"]
    )
    pointer: str | None = Field(
        None, description="RFC 6901 pointer into the body", examples=["/target/class"]
    )
    parameter: str | None = Field(
        None, description="name of a query parameter or header", examples=["limit"]
    )


class Problem(BaseModel):
    """An RFC 9457 problem. `code` is the stable word for programs, `detail` the sentence for
    people.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:efface:problem:not_found"])
    title: str
    status: int
    detail: str
    instance: str = Field(
        description="names this one request, also in X-Request-Id and in the server's log"
    )
    code: str
    errors: list[WrongField] | None = Field(
        None, description=f"the first {MAX_TOLD} of what is wrong"
    )
    more_errors: int | None = Field(None, description="how many more there are", examples=[7980])
    violated_policies: list[str] | None = Field(
        None,
        alias="violated-policies",
        description="names of limits, as in RateLimit-Policy",
        examples=[["requests"]],
    )


class ErrorDetail(BaseModel):
    """One thing that is wrong, as OpenDSR says it (section 7.6)."""

    domain: str
    reason: str
    message: str


class OpenDsrError(BaseModel):
    """The error of OpenDSR (section 7.6)."""

    code: int
    message: str
    errors: list[ErrorDetail]


class OpenDsrProblem(Problem):
    """A problem with the error of OpenDSR in it: both kinds of client read the same body."""

    error: OpenDsrError


SCHEMAS = models_json_schema(
    [
        (Problem, "serialization"),
        (OpenDsrProblem, "serialization"),
        (ModelRegistration, "validation"),
    ],
    ref_template="#/components/schemas/{model}",
)[1]["$defs"]
"""For the OpenAPI document, which the framework fills with what it reads and answers itself."""


CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""Of a problem, in the OpenAPI document."""


def responses(
    *errors: type[EffaceError], also: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Describe a route's problems for OpenAPI, with those that any route may give, and `also`
    other answers.
    """
    described: dict[HTTPStatus, list[str]] = {}
    always: tuple[type[EffaceError], ...] = (
        Unauthenticated,
        Forbidden,
        InvalidRequest,
        QuotaExceeded,
        Unavailable,
    )
    for error in (*always, *errors):
        described.setdefault(STATUS[error], []).append(error.title)
    answers = {
        int(status): {"description": "; ".join(words), "content": CONTENT}
        for status, words in described.items()
    }
    return {
        **{status: dict(answer) for status, answer in (also or {}).items()},
        **dict(sorted(answers.items())),
    }


def refused(*statuses: HTTPStatus) -> dict[int, dict[str, Any]]:
    """Describe what the framework refuses on a route, as `also` for `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Render what the framework itself refuses. Every other error leaves the router and is
    rendered by `Boundary`.
    """
    app.add_exception_handler(RequestValidationError, _on_framework_error)
    app.add_exception_handler(HTTPException, _on_framework_error)


async def _on_framework_error(request: Request, error: Exception) -> JSONResponse:
    return respond(request, error)


def respond(request: Request, error: Exception) -> JSONResponse:
    """Return the response for any exception."""
    match error:
        case EffaceError():
            return _ours(request, error)
        case RequestValidationError():
            return _invalid(request, error)
        case HTTPException():
            return _refused(request, error)
        case ObjectMissing():
            log.error("storage.object_missing", key=error.args[0])
            return _ours(
                request, Unavailable("The object storage has lost the file that was asked for.")
            )
        case OperationalError() | InterfaceError() | PoolTimeoutError():
            log.error("database.unavailable", error=str(getattr(error, "orig", error)))
            return _ours(
                request, Unavailable("The database does not answer. Try again in a moment.")
            )
        case _:
            log.error("http.unexpected_error", exc_info=error)
            return _unexpected(request)


def _ours(request: Request, error: EffaceError) -> JSONResponse:
    kind = next((kind for kind in STATUS if isinstance(error, kind)), None)
    if kind is None:
        log.error("http.unexpected_error", exc_info=error)
        return _unexpected(request)
    more: dict[str, Any] = {}
    if isinstance(error, InvalidRequest):
        more = {"errors": [_wrong_field(e) for e in error.errors]} | _counted(error.more)
    elif isinstance(error, QuotaExceeded):
        more = {"type": QUOTA_EXCEEDED, "violated-policies": [error.policy]}
    elif isinstance(error, StorageFull):
        more = {"violated-policies": [error.policy], "used": error.used, "allowed": error.allowed}
    headers = dict(HEADERS.get(kind, {}))
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(error.retry_seconds)
    return _problem(
        request, STATUS[kind], error.code, error.title, error.detail, headers=headers, more=more
    )


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Name each wrong parameter. Of bodies the framework says no more than that there is none
    (see `json_route`).
    """
    errors = error.errors()
    wrong = [_wrong_parameter(e) for e in errors[:MAX_TOLD]]
    return _ours(request, InvalidRequest(wrong, more=max(0, len(errors) - MAX_TOLD)))


def _wrong_parameter(error: Mapping[str, Any]) -> FieldError:
    detail = field_errors([{**error, "loc": ()}], None)[0].detail
    if error["loc"][0] == "body":
        return FieldError("", detail)
    where, name = str(error["loc"][0]), str(error["loc"][1] if len(error["loc"]) > 1 else "")
    return FieldError("", f"{where} parameter {name} {detail}", name)


def _wrong_field(error: FieldError) -> dict[str, str]:
    if error.parameter is not None:
        return {"detail": error.detail, "parameter": error.parameter}
    return {"detail": error.detail, "pointer": error.pointer}


def _counted(more: int) -> dict[str, int]:
    return {"more_errors": more} if more else {}


def _refused(request: Request, error: HTTPException) -> JSONResponse:
    """Tell of unknown routes, wrong methods, bodies over the limit or of another type."""
    status = HTTPStatus(error.status_code)
    if status is STATUS[TooLarge]:
        return _ours(request, TooLarge(error.detail))
    path, method = cut(request.url.path, 200), "HEAD" if request.scope.get(HEAD) else request.method
    details = {
        HTTPStatus.NOT_FOUND: f"There is no {path}. GET /openapi.json lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{method} is not possible on {path}.",
    }
    detail = details.get(status, error.detail)
    headers = (
        {"Allow": _allowed(request)} if status is HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    )
    return _problem(request, status, status.name.lower(), status.phrase, detail, headers=headers)


def _allowed(request: Request) -> str:
    """Return the methods of every route at this path; the framework names those of the first one
    alone.
    """
    tried = ((method, {**request.scope, "method": method}) for method in METHODS)
    found = [
        name
        for name, scope in tried
        if any(r.matches(scope)[0] is Match.FULL for r in request.app.routes)
    ]
    return ", ".join(
        name for name in METHODS if name in found or (name == "HEAD" and "GET" in found)
    )


def _unexpected(request: Request) -> JSONResponse:
    """Say nothing of the inside."""
    detail = (
        "The request could not be served because of a fault in the service. Its log has the cause."
    )
    return _problem(
        request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Internal error", detail
    )


def _problem(
    request: Request,
    status: HTTPStatus,
    code: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": f"urn:efface:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": cut(detail, MAX_DETAIL),
        "instance": f"urn:uuid:{request.state.request_id}",
        "code": code,
    }
    return JSONResponse(body | dict(more or {}), status, headers, media_type=MEDIA_TYPE)

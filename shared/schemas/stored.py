"""Documents that lie in rows and objects, read as they were stored: by this version or by one
before it.

What a client sends is read strictly, so that a misspelt field is never ignored. What we have
stored ourselves is read leniently: a field that no longer exists is left out, one that is new
has its default. `jobs.document_version` says in which form a job's are."""

from collections.abc import Mapping
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError

from shared.errors import EffaceError
from shared.schemas.base import Schema
from shared.schemas.methods import METHOD_PARAMETERS
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import JobSpec

S = TypeVar("S", bound=Schema)

log = structlog.get_logger()


class Unreadable(EffaceError):
    """A stored document that this version cannot read, however leniently."""

    code = "unreadable_document"
    title = "A stored document cannot be read by this version"


def stored(schema: type[S], document: object) -> S:
    """Return a stored document; fields that are not known any more are left out.

    Raises:
        Unreadable: it lacks what cannot be left out, or has it in another form.
    """
    try:
        return schema.model_validate(document, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = "/" + "/".join(map(str, first["loc"]))
        raise Unreadable(f"{schema.__name__}: {where}: {first['msg']}") from error


def readable(schema: type[S], document: object, row: str) -> S | None:
    """Return a stored document for show, or None, with a line in the log, where it cannot be
    read: others are still to be shown.
    """
    try:
        return stored_request(document) if schema is ErasureRequest else stored(schema, document)  # type: ignore[return-value]
    except Unreadable as error:
        log.warning("document.unreadable", row=row, schema=schema.__name__, error=error.detail)
        return None


def stored_request(document: object) -> ErasureRequest:
    """Return a stored request.

    Raises:
        Unreadable: as `stored`.
    """
    return stored(ErasureRequest, _with_known_parameters(document))


def stored_spec(document: Mapping[str, Any]) -> JobSpec:
    """Return a stored specification.

    Raises:
        Unreadable: as `stored`.
    """
    return stored(JobSpec, {**document, "request": _with_known_parameters(document.get("request"))})


def _with_known_parameters(request: object) -> object:
    """Leave out parameters that the method no longer has: they are read by a schema of their
    own, which is strict.
    """
    method = request.get("method") if isinstance(request, Mapping) else None
    if not isinstance(request, Mapping) or not isinstance(method, Mapping):
        return request
    schema = METHOD_PARAMETERS.get(str(method.get("name")))
    if schema is None or not isinstance(method.get("parameters"), Mapping):
        return request
    known = {name for field, info in schema.model_fields.items() for name in (field, info.alias)}
    parameters = {name: value for name, value in method["parameters"].items() if name in known}
    return {**request, "method": {**method, "parameters": parameters}}

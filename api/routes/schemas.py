"""The JSON Schema of reports, for whoever has to read one: no key needed."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Response

from api.conditional import entity_tag, matches
from shared.schemas.publish import REPORT_SCHEMA_FILE
from shared.schemas.report import REPORT_SCHEMA_PATH

router = APIRouter(tags=["service"])

CONTENT = REPORT_SCHEMA_FILE.read_bytes()
HEADERS = {"ETag": entity_tag(hashlib.sha256(CONTENT).hexdigest()), "Cache-Control": "public, max-age=3600"}


@router.get(
    REPORT_SCHEMA_PATH,
    summary="The JSON Schema of reports",
    response_class=Response,
    responses={
        200: {"content": {"application/schema+json": {}}, "description": "JSON Schema 2020-12"},
        304: {"description": "It is the one of the ETag"},
    },
)
def report_schema(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return the schema that every report of this version keeps to."""
    if matches(if_none_match, HEADERS["ETag"]):
        return Response(status_code=304, headers=HEADERS)
    return Response(CONTENT, headers=HEADERS, media_type="application/schema+json")

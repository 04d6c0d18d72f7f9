"""JSON Schemas of what is handed out, for whoever has to read it: no key needed."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from api.conditional import entity_tag, matches
from api.json_route import Route
from shared.schemas.certificate import SCHEMA_FILE, SCHEMA_PATH
from shared.schemas.publish import REPORT_SCHEMA_FILE
from shared.schemas.report import REPORT_SCHEMA_PATH

router = APIRouter(tags=["service"], route_class=Route)

KEEP_SECONDS = 3600


def _serve(path: str, file: Path, what: str) -> None:
    """Add the route of one schema, which is read when the gateway starts."""
    content = file.read_bytes()
    tag = entity_tag(hashlib.sha256(content).hexdigest())
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={KEEP_SECONDS}"}

    @router.get(
        path,
        summary=f"The JSON Schema of {what}",
        operation_id=f"schema_of_{what}",
        response_class=Response,
        responses={
            200: {"content": {"application/schema+json": {}}, "description": "JSON Schema 2020-12"},
            304: {"description": "It has not changed since the ETag"},
        },
    )
    def schema(request: Request) -> Response:
        """Return the schema, byte for byte as it is published. Needs no API key."""
        # read from the request: a declared parameter would document a 422 that never comes
        if matches(request.headers.get("If-None-Match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="application/schema+json")


_serve(REPORT_SCHEMA_PATH, REPORT_SCHEMA_FILE, "reports")
_serve(SCHEMA_PATH, SCHEMA_FILE, "certificates")

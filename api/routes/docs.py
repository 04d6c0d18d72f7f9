"""The API's documentation as a page, and the OpenAPI document under it. No key: neither holds a
secret.

Swagger UI is served from here. Nothing is loaded from elsewhere, and the page's policy lets
nothing be."""

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from api.conditional import entity_tag, matches
from api.json_route import Route

OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"
KEEP_SECONDS = 3600

router = APIRouter(route_class=Route, include_in_schema=False)

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Efface API</title>
<link rel="stylesheet" href="{DOCS_PATH}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{DOCS_PATH}/swagger-ui-bundle.js"></script>
<script src="{DOCS_PATH}/start.js"></script>
</body>
</html>
"""
START = f"""SwaggerUIBundle({{
  url: "{OPENAPI_PATH}",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  validatorUrl: null
}});
"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' "
    "'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": f"public, max-age={KEEP_SECONDS}",
}
"""Swagger UI styles some of its elements by attributes; it needs no inline script."""

FILES = {
    DOCS_PATH: (PAGE.encode(), "text/html; charset=utf-8"),
    f"{DOCS_PATH}/start.js": (START.encode(), "text/javascript"),
    **{
        f"{DOCS_PATH}/{name}": (
            files("fastapi_offline").joinpath("static", name).read_bytes(),
            kind,
        )
        for name, kind in (
            ("swagger-ui-bundle.js", "text/javascript"),
            ("swagger-ui.css", "text/css"),
        )
    },
}
OPEN_PATHS = frozenset({OPENAPI_PATH, *FILES})


def _serve(path: str, content: bytes, media_type: str) -> None:
    """Add the route of one file."""
    headers = HEADERS | {"ETag": entity_tag(hashlib.sha256(content).hexdigest())}

    @router.get(path)
    async def file(request: Request) -> Response:
        """Return the file."""
        if matches(request.headers.get("If-None-Match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)


for _path, (_content, _kind) in FILES.items():
    _serve(_path, _content, _kind)


@router.get(OPENAPI_PATH)
def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    content: bytes = request.app.rendered_openapi()
    headers = {
        "ETag": entity_tag(hashlib.sha256(content).hexdigest()),
        "X-Content-Type-Options": "nosniff",
    }
    if matches(request.headers.get("If-None-Match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")

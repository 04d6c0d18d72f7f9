"""The style sheet and the scripts of the console, served from memory. Their paths hold their
digest, so that browsers keep them.
"""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from api.conditional import entity_tag, matches
from api.console import PREFIX

STATIC = f"{PREFIX}/static"
FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
KEEP = "public, max-age=31536000, immutable"

router = APIRouter(prefix=STATIC, include_in_schema=False)

CONTENT = {
    file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.suffix in KINDS
}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def url_of(name: str) -> str:
    """Return where a file is served."""
    return f"{STATIC}/{DIGESTS[name][:12]}/{name}"


def _serve(name: str, content: bytes) -> None:
    tag = entity_tag(DIGESTS[name])
    headers = {"ETag": tag, "Cache-Control": KEEP}

    @router.get(f"/{DIGESTS[name][:12]}/{name}", name=name)
    async def file(request: Request) -> Response:
        """Return the file."""
        if matches(request.headers.get("If-None-Match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=KINDS[Path(name).suffix])


for _name, _content in CONTENT.items():
    _serve(_name, _content)

"""The Idempotency-Key header, and the answers that are given once and replayed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import http_sf
from fastapi import Depends, Header, Request, Response
from pydantic import AfterValidator

from api.json_route import JSON
from services.access import idempotency
from services.access.api_keys import Principal
from services.access.idempotency import Answer, Call

KEY_HEADER = "Idempotency-Key"
MAX_KEY_CHARACTERS = 255
REPLAYED = {"Idempotency-Replayed": "true"}


def _key(header: str | None) -> str | None:
    """Return the key of a header: a structured-field string, or the bare word that many clients
    send.
    """
    if header is None:
        return None
    key: object = header.strip()
    if header.lstrip().startswith('"'):
        try:
            item = http_sf.parse(header.encode("latin-1"), tltype="item")
        except http_sf.StructuredFieldError as error:
            raise ValueError(
                'must be a string in double quotes (RFC 9651), e.g. "8e03978e-40d5"'
            ) from error
        key = item[0] if isinstance(item, tuple) else item
    if not isinstance(key, str) or not key.isascii() or not key.isprintable():
        raise ValueError("must hold printable ASCII characters alone")
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise ValueError(f"must have 1 to {MAX_KEY_CHARACTERS} characters")
    return key


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=KEY_HEADER,
        description="your own name for this request, e.g. a UUID in double quotes: sent again, it "
        "is answered with "
        "what it was answered before, and nothing is done twice",
    ),
    AfterValidator(_key),
]


@dataclass(frozen=True, slots=True)
class Sender:
    """A request, and its key if it has one."""

    request: Request
    key: str | None

    def call(self, payload: Callable[[], object]) -> Call | None:
        """Return the request under its key, None without one; then `payload` is not asked for."""
        if self.key is None:
            return None
        caller: Principal = self.request.state.principal
        method, path = self.request.method, self.request.scope["path"]
        return idempotency.call(
            caller.tenant_id, self.key, method=method, path=path, payload=payload()
        )


async def _sender(request: Request, idempotency_key: IdempotencyKey = None) -> Sender:
    """Asynchronous like the others that do not wait: not worth a thread."""
    return Sender(request, idempotency_key)


SenderDep = Annotated[Sender, Depends(_sender)]


def respond(answer: Answer) -> Response:
    """Return an answer as HTTP; one that was given before says so."""
    headers = answer.headers | (REPLAYED if answer.replayed else {})
    return Response(answer.body, answer.status, headers, media_type=JSON)

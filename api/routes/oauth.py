"""The token endpoint: an access token for client credentials (RFC 6749, section 4.4)."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from api import oauth, ratelimit
from api.decoding import check_coding, decoded
from api.dependencies import PartsDep, SessionDep
from api.json_route import JSON, Route
from api.oauth import TOKEN_PATH
from api.problems import responses
from shared.errors import InvalidRequest, TooLarge
from shared.states import Scope

MAX_FORM_BYTES = 8192
NO_STORE = {"Cache-Control": "no-store"}


class TokenRoute(Route):
    """A route that says as OAuth2 does what is wrong with its query: whatever is secret must not
    stand there.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler; a query is a token request that is not sound."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except InvalidRequest as error:
                wrong = TokenError(
                    error="invalid_request", error_description=error.detail.replace('"', "'")
                )
                return Response(wrong.model_dump_json(), 400, NO_STORE, media_type=JSON)

        return answered


router = APIRouter(tags=["keys"], route_class=TokenRoute)


class Token(BaseModel):
    """An access token (RFC 6749, section 5.1)."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="seconds")
    scope: str = Field(examples=["jobs:read jobs:write"])


class TokenError(BaseModel):
    """Why there is none (RFC 6749, section 5.2)."""

    error: Literal["invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"]
    error_description: str | None = None


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "client_id": {
                            "type": "string",
                            "description": "the key's id, unless HTTP Basic has it",
                        },
                        "client_secret": {
                            "type": "string",
                            "description": "the key itself, unless HTTP Basic has it",
                        },
                        "scope": {
                            "type": "string",
                            "description": "a part of the key's scopes; by default all",
                        },
                    },
                },
                "example": {
                    "grant_type": "client_credentials",
                    "scope": f"{Scope.JOBS_READ} {Scope.JOBS_WRITE}",
                },
            }
        },
    },
    "security": [],
}


async def _form(request: Request) -> str:
    """Return the body as text; oauthlib reads it.

    Raises:
        TooLarge: it is longer than any sound one.
    """
    too_large = TooLarge(f"A token request may have {MAX_FORM_BYTES} bytes.")
    body = bytearray()
    async for chunk in decoded(request.stream(), check_coding(request), too_large, MAX_FORM_BYTES):
        body += chunk
    return body.decode(errors="replace")


_ERROR = {"model": TokenError}


@router.post(
    TOKEN_PATH,
    summary="Get an access token for client credentials",
    response_model=Token,
    openapi_extra=_BODY,
    responses={
        **responses(TooLarge),
        400: _ERROR | {"description": "The request is not a sound token request"},
        401: _ERROR
        | {"description": "The client is unknown, or its key has expired or was revoked"},
    },
)
def token(
    form: Annotated[str, Depends(_form)], request: Request, session: SessionDep, parts: PartsDep
) -> Response:
    """Give an access token to a key: its id is the `client_id`, the key itself the `client_secret`.

    Both come by HTTP Basic or in the form. The token does what the key does, or the part of it
    that `scope` names."""
    answer = oauth.answer(session, form, request.headers, parts.settings.token_seconds)
    if answer.client is not None:
        ratelimit.check(request, parts.limiter.hit(answer.client.tenant_id))
    return Response(answer.body, answer.status, answer.headers)

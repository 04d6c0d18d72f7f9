"""OAuth2 client credentials (RFC 6749, section 4.4): oauthlib keeps the protocol,
`services.access.access_tokens` the tokens.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_plus, urlencode

from oauthlib.common import Request
from oauthlib.oauth2 import BackendApplicationServer, InvalidClientError, RequestValidator
from sqlalchemy.orm import Session

from services.access import access_tokens
from services.access.api_keys import Principal

TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path
CHALLENGE = {"WWW-Authenticate": 'Basic realm="efface"'}
"""How a client may say who it is, for one that failed to (section 5.2)."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What the token endpoint answers, and who asked, if it was one of ours."""

    status: int
    body: str
    headers: dict[str, str]
    client: Principal | None


@dataclass(frozen=True, slots=True)
class _Client:
    """A client as oauthlib wants it."""

    client_id: str


def answer(
    session: Session, form: str, headers: Mapping[str, str], token_seconds: int
) -> TokenAnswer:
    """Answer a token request; an error is a JSON object as in section 5.2.

    The request's query is not looked at: whatever is secret must not stand there (section 2.3.1).
    """
    fields = parse_qsl(
        form, keep_blank_values=True, errors="replace"
    )  # oauthlib drops a form that has a blank in it
    validator = _Validator(session, token_seconds)
    server = BackendApplicationServer(
        validator, token_generator=validator.issue, token_expires_in=token_seconds
    )
    given, body, status = server.create_token_response(
        TOKEN_PATH, "POST", urlencode(fields), dict(headers)
    )
    return TokenAnswer(
        status,
        body,
        given | (CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}),
        validator.owner,
    )


class _Validator(RequestValidator):
    """Answers what oauthlib asks about one request. An API key is a client: by its id and its
    secret.
    """

    def __init__(self, session: Session, token_seconds: int) -> None:
        super().__init__()
        self._session, self._token_seconds = session, token_seconds
        self.owner: Principal | None = None

    def authenticate_client(self, request: Request, *_: object, **__: object) -> bool:
        """Find the client by HTTP Basic, or by the form's fields."""
        client_id, secret = _basic(request.headers) or (request.client_id, request.client_secret)
        self.owner = access_tokens.client(self._session, client_id or "", secret or "")
        request.client = _Client(client_id or "")
        return self.owner is not None

    def validate_grant_type(self, *_: object, **__: object) -> bool:
        """Let every client use the one grant that there is."""
        return True

    def get_default_scopes(self, *_: object, **__: object) -> list[str]:
        """Return what the key may do."""
        return sorted(self._owner.scopes)

    def validate_scopes(self, client_id: str, scopes: list[str], *_: object, **__: object) -> bool:  # noqa: ARG002
        """Let a token do no more than its key."""
        return access_tokens.grantable(self._owner, scopes)

    def issue(self, request: Request) -> str:
        """Make the token that oauthlib is about to answer with."""
        return access_tokens.issue(
            self._session, self._owner, request.scopes or [], self._token_seconds
        )

    def save_bearer_token(self, *_: object, **__: object) -> None:
        """Do nothing: `issue` has kept its hash."""

    @property
    def _owner(self) -> Principal:
        if self.owner is None:
            raise InvalidClientError
        return self.owner


def _basic(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the credentials of HTTP Basic, which are form-encoded before they are put together
    (section 2.3.1).
    """
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    return unquote_plus(client_id), unquote_plus(secret)

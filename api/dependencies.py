"""What a route asks for: its parts, a transaction, and whose request it is."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import HTTPBearer, OAuth2
from sqlalchemy.orm import Session

from api.oauth import TOKEN_PATH
from api.parts import Parts, parts_of
from services.access.api_keys import Principal
from services.audit_log.entries import ACTOR, PERSON
from shared.errors import Forbidden
from shared.states import Scope


async def _parts(request: Request) -> Parts:
    """Return what the application holds open. Asynchronous like `principal`: neither is worth a
    thread.
    """
    return parts_of(request)


PartsDep = Annotated[Parts, Depends(_parts)]


Begin = Callable[[], AbstractContextManager[Session]]


async def _begin(parts: PartsDep, request: Request) -> Begin:
    @contextmanager
    def begin() -> Iterator[Session]:
        with parts.database.transaction() as session:
            if principal := getattr(request.state, "principal", None):
                session.info[ACTOR] = principal.key_id
            if person := getattr(request.state, "person", None):
                session.info[PERSON] = person
            yield session

    return begin


BeginDep = Annotated[Begin, Depends(_begin)]
"""Gives a transaction when it is called. For routes that are called often: what begins and ends
it is the route's own thread, where `SessionDep` takes one more for each."""


def _transaction(begin: BeginDep) -> Iterator[Session]:
    with begin() as session:
        yield session


SessionDep = Annotated[Session, Depends(_transaction, scope="function")]
"""One request, one transaction. With `scope="function"` it is committed before the response
leaves: a client that has an answer can rely on it. FastAPI's default would commit afterwards,
when a failure can no longer be told."""

bearer = HTTPBearer(auto_error=False, description="An API key, made by `efface keys create`")
oauth2 = OAuth2(
    auto_error=False,
    description="An access token for client credentials (RFC 6749, section 4.4)",
    flows=OAuthFlows(
        clientCredentials=OAuthFlowClientCredentials(
            tokenUrl=TOKEN_PATH,
            scopes={
                **{
                    scope.value: " ".join(reversed(scope.value.split(":"))) for scope in Scope
                },  # jobs:read -> read jobs
                Scope.ADMIN.value: "everything in the tenant, and its keys",
            },
        )
    ),
)
"""Both only describe the header in the OpenAPI document: `boundary.Authentication` has checked
it already.
"""


def require(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """Return a dependency that gives the caller's principal if its key has `scope`.

    Raises:
        Forbidden: it has not.
    """

    async def principal(
        request: Request,
        _key: Annotated[object, Depends(bearer)],
        _token: Annotated[object, Security(oauth2, scopes=[scope.value])],
    ) -> Principal:
        check_scope(request, frozenset({scope}))
        caller: Principal = request.state.principal
        return caller

    _SCOPES[principal] = scope
    return principal


_SCOPES: dict[Callable[..., object], Scope] = {}
"""What each dependency that `require` has made asks for."""


def scope_of(dependant: Dependant) -> frozenset[Scope]:
    """Return the scopes that a route asks for, so that it can ask before it reads a body."""
    own = {_SCOPES[part.call] for part in dependant.dependencies if part.call in _SCOPES}
    return frozenset(own).union(*(scope_of(part) for part in dependant.dependencies))


def check_scope(request: Request, scopes: frozenset[Scope]) -> None:
    """Refuse a request whose key lacks one of these scopes.

    Raises:
        Forbidden: it does.
    """
    if not scopes:
        return
    caller: Principal = request.state.principal
    for scope in scopes - caller.scopes if Scope.ADMIN not in caller.scopes else ():
        raise Forbidden(
            f"This needs a key with the scope {scope}; yours has "
            f"{', '.join(caller.scopes) or 'none'}."
        )


JobReader = Annotated[Principal, Depends(require(Scope.JOBS_READ))]
JobWriter = Annotated[Principal, Depends(require(Scope.JOBS_WRITE))]
ModelReader = Annotated[Principal, Depends(require(Scope.MODELS_READ))]
ModelWriter = Annotated[Principal, Depends(require(Scope.MODELS_WRITE))]
DatasetReader = Annotated[Principal, Depends(require(Scope.DATASETS_READ))]
DatasetWriter = Annotated[Principal, Depends(require(Scope.DATASETS_WRITE))]
MetricsReader = Annotated[Principal, Depends(require(Scope.METRICS_READ))]
Admin = Annotated[Principal, Depends(require(Scope.ADMIN))]

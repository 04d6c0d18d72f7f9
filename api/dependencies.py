"""What a route asks for: its parts, a transaction, and whose request it is."""

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session

from api.parts import Parts, parts_of
from services.audit_log import ACTOR
from services.keys import Principal
from shared.errors import Forbidden
from shared.states import Scope

PartsDep = Annotated[Parts, Depends(parts_of)]


def _transaction(parts: PartsDep, request: Request) -> Iterator[Session]:
    with parts.database.transaction() as session:
        if principal := getattr(request.state, "principal", None):
            session.info[ACTOR] = principal.key_id
        yield session


SessionDep = Annotated[Session, Depends(_transaction, scope="function")]
"""One request, one transaction. With `scope="function"` it is committed before the response leaves: a client that has
an answer can rely on it. FastAPI's default would commit afterwards, when a failure can no longer be told."""

bearer = HTTPBearer(auto_error=False, description="An API key, made by `efface keys create`")
"""Only describes the header in the OpenAPI document: `boundary.Authentication` has checked it already."""


def require(scope: Scope) -> Callable[..., Principal]:
    """Return a dependency that gives the caller's principal if its key has `scope`.

    Raises:
        Forbidden: it has not.
    """

    def principal(request: Request, _documented: Annotated[object, Depends(bearer)]) -> Principal:
        caller: Principal = request.state.principal
        if not {scope, Scope.ADMIN} & set(caller.scopes):
            raise Forbidden(f"This needs a key with the scope {scope}; yours has {', '.join(caller.scopes) or 'none'}.")
        return caller

    return principal


JobReader = Annotated[Principal, Depends(require(Scope.JOBS_READ))]
JobWriter = Annotated[Principal, Depends(require(Scope.JOBS_WRITE))]
ModelReader = Annotated[Principal, Depends(require(Scope.MODELS_READ))]
ModelWriter = Annotated[Principal, Depends(require(Scope.MODELS_WRITE))]
DatasetReader = Annotated[Principal, Depends(require(Scope.DATASETS_READ))]
DatasetWriter = Annotated[Principal, Depends(require(Scope.DATASETS_WRITE))]

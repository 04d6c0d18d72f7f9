"""The same request sent twice does its work once (draft-ietf-httpapi-idempotency-key-header-07).

The answer is written in the transaction that did the work: either both are there, or neither.
While that transaction is under way it holds an advisory lock on the key, which ends with it even
where its process dies. Only what succeeded is kept: a request that was refused has done nothing
and may be mended and sent again under the same key."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from shared.errors import IdempotencyKeyReused, StillInFlight
from shared.postgres.advisory_locks import try_lock
from shared.postgres.tables import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    status: int
    body: str
    """JSON, as it is sent."""
    headers: dict[str, str]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A request under a key."""

    tenant_id: str
    key: str
    fingerprint: str


def call(tenant_id: str, key: str, *, method: str, path: str, payload: object) -> Call:
    """Return a request under its key; `payload` is what JSON can hold, and the order of its
    fields does not matter.
    """
    canonical = json.dumps(
        [tenant_id, method, path, payload], sort_keys=True, separators=(",", ":")
    )
    return Call(tenant_id, key, hashlib.sha256(canonical.encode()).hexdigest())


def once(
    session: Session, request: Call | None, work: Callable[[], Answer], seconds: float
) -> Answer:
    """Return what `work` answers, and keep it for `seconds`; or the answer that was kept. Without a
    key, just work.

    Raises:
        StillInFlight: another request holds the key.
        IdempotencyKeyReused: the key belongs to another request.
    """
    if request is None:
        return work()
    if not try_lock(session, "idempotency", request.tenant_id, request.key):
        raise StillInFlight(
            "A request with this Idempotency-Key is still being worked on; ask again in a moment."
        )
    earlier = kept(session, request)
    if earlier is not None:
        return earlier
    answer = work()
    _keep(session, request, answer, seconds)
    return answer


def kept(session: Session, request: Call) -> Answer | None:
    """Return the answer that an earlier request under this key got, None where there is none, or no
    longer.

    Raises:
        IdempotencyKeyReused: it was another request.
    """
    fresh = IdempotencyKey.expires_at > func.clock_timestamp()
    row = session.scalar(select(IdempotencyKey).where(*_is(request), fresh))
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused(
            f"The Idempotency-Key {request.key!r} was used for another request; take a new key "
            "for "
            "a new request."
        )
    return Answer(row.status, row.body, dict(row.headers), replayed=True)


def _keep(session: Session, request: Call, answer: Answer, seconds: float) -> None:
    session.execute(
        delete(IdempotencyKey).where(*_is(request))
    )  # one that has expired and was not yet swept
    session.add(
        IdempotencyKey(
            tenant_id=request.tenant_id,
            key=request.key,
            fingerprint=request.fingerprint,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            expires_at=func.clock_timestamp() + timedelta(seconds=seconds),
        )
    )
    session.flush()


def _is(request: Call) -> tuple[ColumnElement[bool], ...]:
    return (IdempotencyKey.tenant_id == request.tenant_id, IdempotencyKey.key == request.key)

"""Everything that can go wrong and is somebody's to act on.

    EffaceError
    +-- InvalidRequest       one or more fields are wrong (each with where, what and what to do)
    +-- NotFound             no such thing, or not this tenant's
    +-- Conflict             the thing is in a state that does not allow this
    |   +-- StillInFlight    another request under the same idempotency key has not ended
    |   +-- NotYet           and will be in one that does: ask again
    +-- Gone                 it was there and was deleted for good
    +-- IdempotencyKeyReused the idempotency key belongs to another request
    +-- QuotaExceeded        the tenant has used up what it may
    +-- Unauthenticated      no key, or not one of ours
    +-- Forbidden            the key lacks a scope
    +-- TooLarge             an upload over its limit
    +-- StorageFull          the tenant stores as much as it may
    +-- TooSlow              an upload that sends nothing any more
    +-- Unavailable          Postgres, Redis or the object storage does not answer
    +-- JobFailure           a job cannot reach its end; its code goes into the job's `error`

An error names a fact and knows neither HTTP nor a terminal: `api/problems.py` gives each a
status, the command line an exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

MAX_TOLD = 20
"""How many wrong fields an error names; what is beyond is counted. An answer must not grow with
what was sent.
"""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: `pointer` is an RFC 6901 pointer into the body, `detail` says what is wrong
    and what to do.

    For what stands in no body, `parameter` is the name of the query parameter or header, and
    `pointer` is empty."""

    pointer: str
    detail: str
    parameter: str | None = None


class EffaceError(Exception):
    """Base of all our errors. `code` is the stable word that programs match on."""

    code = "error"
    title = "Something went wrong"
    retry_seconds: int | None = None
    """When it makes sense to try the same again, where it does."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(EffaceError):
    """One or more fields of a request are wrong."""

    code = "invalid_request"
    title = "The request is not valid"

    def __init__(self, errors: Sequence[FieldError], *, more: int = 0) -> None:
        """Name the first of `errors`; `more` counts those that the caller has left out already."""
        self.errors = tuple(errors[:MAX_TOLD])
        self.more = more + max(0, len(errors) - MAX_TOLD)
        told = [e.detail if e.parameter else f"{e.pointer or '/'}: {e.detail}" for e in self.errors]
        super().__init__("; ".join([*told, *([f"and {self.more:,} more"] if self.more else [])]))

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequest":
        """Return an error about a single field."""
        return cls([FieldError(pointer, detail)])

    def under(self, pointer: str) -> "InvalidRequest":
        """Return the same errors below `pointer`, for whoever knows the field that was read."""
        return InvalidRequest(
            [replace(error, pointer=pointer + error.pointer) for error in self.errors],
            more=self.more,
        )


class NotFound(EffaceError):
    """No such thing, or it belongs to another tenant: the two must look alike."""

    code = "not_found"
    title = "There is no such thing"

    def __init__(self, noun: str, identifier: str, *, listed: str | None = None) -> None:
        """Say that there is no such `noun`; `listed` is the path that lists them, where it is
        not `/<noun>s`.
        """
        super().__init__(
            f"There is no {noun} {identifier!r}. List what there is with GET "
            f"{listed or f'/{noun}s'}."
        )


class Conflict(EffaceError):
    """The thing is in a state that does not allow this."""

    code = "conflict"
    title = "Not possible in this state"


class StillInFlight(Conflict):
    """Another request under the same idempotency key has not ended."""

    code = "idempotency_in_flight"
    title = "The same request is being worked on"
    retry_seconds = 1


class IdempotencyKeyReused(EffaceError):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


class QuotaExceeded(EffaceError):
    """The tenant has used up what it may. `policy` is the limit's name, as in the
    RateLimit-Policy header.
    """

    code = "quota_exceeded"
    title = "A limit is reached"

    def __init__(self, detail: str, *, policy: str, retry_seconds: int) -> None:
        super().__init__(detail)
        self.policy = policy
        self.retry_seconds = retry_seconds


class NotYet(Conflict):
    """The thing is about to come; asking again in a moment helps."""

    code = "not_yet"
    title = "Not there yet"


class Gone(EffaceError):
    """It was there, and was deleted: it does not come back."""

    code = "gone"
    title = "It was deleted"


class Unauthenticated(EffaceError):
    """No key, or a key that is unknown or revoked."""

    code = "unauthenticated"
    title = "A valid API key is needed"


class Forbidden(EffaceError):
    """The key is valid but lacks a scope."""

    code = "forbidden"
    title = "The API key lacks a scope"


class TooLarge(EffaceError):
    """An upload or body over its limit."""

    code = "too_large"
    title = "The upload is too large"


class StorageFull(EffaceError):
    """The tenant stores as much as it may. `policy` is the limit's name; `used` and `allowed`
    are in its unit.
    """

    code = "storage_quota_exceeded"
    title = "The tenant's storage is full"

    def __init__(self, detail: str, *, policy: str, used: int, allowed: int) -> None:
        super().__init__(detail)
        self.policy, self.used, self.allowed = policy, used, allowed


class TooSlow(EffaceError):
    """The client has stopped to send."""

    code = "too_slow"
    title = "The upload has come to a standstill"


class Unavailable(EffaceError):
    """A part that the service stands on does not answer."""

    code = "unavailable"
    title = "A part of the service is down"
    retry_seconds = 5


class JobFailure(EffaceError):
    """A job cannot reach its end, and trying again would not help. Raised in the pipeline, kept in
    the job's `error`.

    Codes: `thresholds_not_met`, `invalid_checkpoint`, `invalid_dataset`, `invalid_labels`,
    `method_failed`. The worker adds `time_limit`, and, once no attempt is left, `worker_lost`
    and `internal_error`."""

    title = "The job failed"

    def __init__(self, code: str, detail: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.data = dict(data or {})

"""The storage as a job's process sees it: what its specification names, and no more.

It keeps a path that a request or a file brings along from leading elsewhere. It is no wall
against code that runs in the process: that has the storage's own credentials, where there are
any."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from shared.errors import EffaceError
from shared.ports.object_storage import Storage, StoredObject
from shared.schemas.spec import JobSpec

SCHEME = "storage:"


class OutOfBounds(EffaceError):
    """A job reached for an object that is none of its own. Trying again will not help."""

    code = "out_of_bounds"
    title = "Not an object of this job"


def narrowed(storage: Storage, spec: JobSpec) -> Storage:
    """Return a storage that reads what a job names and writes below the job, and its tenant's
    cache.
    """
    models = [model.reference for model in (spec.model, spec.reference) if model is not None]
    sources = (*models, *(source.uri for source in spec.data.all()))
    named = tuple(source.removeprefix(SCHEME) for source in sources if source.startswith(SCHEME))
    own = (spec.job_prefix, spec.cache_prefix)
    return _Narrowed(storage, reads=named + own, writes=own)


class _Narrowed(Storage):
    """Storage within bounds."""

    def __init__(
        self, storage: Storage, *, reads: tuple[str, ...], writes: tuple[str, ...]
    ) -> None:
        self.__dict__.update(storage.__dict__)
        self._reads, self._writes = reads, writes

    def put(self, key: str, data: bytes | Path | Iterable[bytes]) -> int:
        """Store an object of the job."""
        _check(key, self._writes)
        return super().put(key, data)

    def get(self, key: str) -> bytes:
        """Return an object that the job names."""
        _check(key, self._reads)
        return super().get(key)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an object that the job names."""
        _check(key, self._reads)
        yield from super().stream(key, start, end)

    def size(self, key: str) -> int:
        """Return the size of an object that the job names."""
        _check(key, self._reads)
        return super().size(key)

    def sign(self, key: str, seconds: int) -> str | None:
        """Refuse: a job hands nothing out."""
        raise OutOfBounds(f"A job may not sign a URL for {key!r} ({seconds} s).")

    def list(self, prefix: str) -> list[StoredObject]:
        """Return what lies below a prefix that the job names."""
        _check(prefix, self._reads)
        return super().list(prefix)

    def delete(self, prefix: str) -> int:
        """Delete what is the job's own."""
        _check(prefix, self._writes)
        return super().delete(prefix)


def _check(key: str, bounds: tuple[str, ...]) -> None:
    """Raise unless a key is one of `bounds` or lies below it."""
    if ".." in key.split("/") or not any(
        key == bound or key.startswith(f"{bound}/") for bound in bounds
    ):
        raise OutOfBounds(f"The object {key!r} is none of this job's.")

"""The object storage port: put, get, sign, list, delete. One implementation over obstore, for
file: and every cloud.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import LocalStore, ObjectStore, from_url

from shared.errors import Unavailable

CHUNK_BYTES = 8 * 1024 * 1024
PROBED = "health/ping"
"""A key that is asked for to see whether the storage answers. No object lies there."""


class ObjectMissing(KeyError):
    """There is no object under this key."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it."""

    key: str
    size: int
    modified: datetime | None = None


class Storage:
    """Objects under keys such as `tenants/<t>/jobs/<id>/1/report.json`.

    Raises:
        ObjectMissing: a key that is read does not exist.
        Unavailable: the storage does not answer or refuses.
    """

    def __init__(self, url: str, public_endpoint: str | None = None) -> None:
        """Open `url`: `file://<folder>` (created if need be) or any URL that obstore knows, e.g.
        `s3://bucket/prefix`.

        Credentials and endpoints of the clouds come from their usual variables (`AWS_ENDPOINT`,
        `AWS_ACCESS_KEY_ID`,
        ...). `public_endpoint` stands in signed URLs where clients reach the storage under another
          name.
        """
        self.url = url
        self._store: ObjectStore = _open(url)
        self._signer = (
            _open(url, endpoint=public_endpoint)
            if public_endpoint and not url.startswith("file://")
            else self._store
        )

    def put(self, key: str, data: bytes | Path | Iterable[bytes]) -> int:
        """Store `data` (bytes, a file, or chunks) and return its size in bytes. Replaces what
        was there.
        """
        counted = _Counter(chunks_of(data))
        with _translated(self.url, key):
            obstore.put(self._store, key, counted)
        return counted.size

    def get(self, key: str) -> bytes:
        """Return a whole object; for small ones."""
        with _translated(self.url, key):
            return bytes(obstore.get(self._store, key).bytes())

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an object in chunks, or its bytes from `start` up to and without `end`."""
        with _translated(self.url, key):
            if start == 0 and end is None:
                yield from map(
                    bytes, obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES)
                )
                return
            stop = self.size(key) if end is None else end
            for at in range(start, stop, CHUNK_BYTES):
                yield bytes(
                    obstore.get_range(self._store, key, start=at, end=min(at + CHUNK_BYTES, stop))
                )

    def download(self, key: str, path: Path) -> Path:
        """Copy an object into a file and return its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in self.stream(key):
                file.write(chunk)
        return path

    def size(self, key: str) -> int:
        """Return an object's size in bytes."""
        with _translated(self.url, key):
            return int(obstore.head(self._store, key)["size"])

    def sign(self, key: str, seconds: int) -> str | None:
        """Return a URL that gives the object to whoever holds it for `seconds`, or None where
        the storage has no URLs (file://).
        """
        if isinstance(self._store, LocalStore):
            return None
        with _translated(self.url, key):
            return str(obstore.sign(self._signer, "GET", key, timedelta(seconds=seconds)))  # type: ignore[call-overload]

    def list(self, prefix: str) -> list[StoredObject]:
        """Return every object below `prefix` (whole path parts), sorted by key."""
        with _translated(self.url, prefix):
            rows = [row for page in obstore.list(self._store, prefix) for row in page]
        return sorted(
            (StoredObject(str(row["path"]), int(row["size"])) for row in rows), key=lambda o: o.key
        )

    def each(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object below `prefix` (whole path parts) as the storage lists them: page
        by page, in no order.
        """
        with _translated(self.url, prefix):
            for page in obstore.list(self._store, prefix):
                for row in page:
                    yield StoredObject(str(row["path"]), int(row["size"]), row["last_modified"])

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of what lies right below `prefix` and has something below itself,
        sorted.
        """
        with _translated(self.url, prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def find(self, key: str) -> Sequence[StoredObject]:
        """Return what is below a prefix, or the one object that it names, or nothing."""
        if below := self.list(key):
            return below
        try:
            return [StoredObject(key, self.size(key))]
        except ObjectMissing:
            return []

    def delete(self, prefix: str) -> int:
        """Delete an object, or every object below a prefix; return how many there were. None is
        no error.
        """
        keys = [found.key for found in self.find(prefix)]
        with _translated(self.url, prefix):
            try:
                if keys:
                    obstore.delete(self._store, keys)
            except (GenericError, FileNotFoundError):
                # Somebody else deletes, too, or the server has deleted and then answered what
                # obstore cannot read.
                if self.find(prefix):
                    raise
        return len(keys)

    def ping(self) -> None:
        """Raise Unavailable unless the storage answers. Nothing is written: a bucket with
        versions would keep it for ever.
        """
        try:
            self.size(PROBED)
        except ObjectMissing:  # as it should be, unless the bucket is missing
            with _translated(self.url, PROBED):
                next(iter(obstore.list(self._store, PROBED)), None)


def local_folder(url: str) -> Path | None:
    """Return where a `file://` storage keeps its objects, None for any other."""
    if not url.startswith("file://"):
        return None
    return Path(url.removeprefix("file://")).expanduser().absolute()


def _open(url: str, **options: str) -> ObjectStore:
    if (folder := local_folder(url)) is not None:
        return LocalStore(folder, mkdir=True)
    try:
        return from_url(url, **options)  # type: ignore[call-overload, no-any-return]
    except BaseError as error:
        raise Unavailable(f"The object storage {url!r} cannot be opened: {error}") from error


class _Counter:
    """Counts the bytes that pass."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            yield chunk


def chunks_of(data: bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    """Yield bytes, or a file in chunks, or chunks as they are."""
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    else:
        yield from data


def hashed(chunks: Iterable[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    """Yield chunks as they are, and feed them to `digest` on the way."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


class _translated:  # noqa: N801 - used as a function
    """Turn obstore's errors into ours."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise ObjectMissing(self._key) from error
        if isinstance(error, BaseError):
            raise Unavailable(f"The object storage failed on {self._key!r}: {error}") from error

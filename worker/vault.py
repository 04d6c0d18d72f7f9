"""Objects that are encrypted with one key: whoever destroys the key has destroyed them, in every
copy and backup.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.crypto.archive_encryption import SealBroken, sealed, unsealed
from shared.ports.object_storage import Storage, chunks_of


def key_of(data_key: str | None) -> bytes | None:
    """Return the opened key that a specification brings along for a job or a data set; None
    where it has none.
    """
    return None if data_key is None else base64.b64decode(data_key)


class Vault:
    """A part of the storage whose objects are encrypted with a key; as they are, where there is
    none.
    """

    def __init__(self, storage: Storage, key: bytes | None) -> None:
        """Take the storage, and a key that is opened."""
        self._storage, self._key = storage, key

    def put(self, name: str, path: Path) -> None:
        """Encrypt a file into the object `name`. The name is authenticated with it: no object
        can stand for another.
        """
        chunks = chunks_of(path)
        self._storage.put(name, chunks if self._key is None else sealed(chunks, self._key, name))

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Give the content of an object as a file, which is deleted with the block.

        Raises:
            ObjectMissing: there is none.
            SealBroken: it was changed, or encrypted with another key or not at all.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            stored = self._storage.stream(name)
            with path.open("wb") as file:
                for chunk in stored if self._key is None else unsealed(stored, self._key, name):
                    file.write(chunk)
            yield path

    def names(self, prefix: str) -> list[str]:
        """Return the names of the objects below a prefix, sorted."""
        return [found.key for found in self._storage.list(prefix)]


__all__ = ["SealBroken", "Vault", "key_of"]

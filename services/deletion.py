"""Delete everything below a prefix of the storage, and list what went."""

from dataclasses import dataclass

from shared.errors import Unavailable
from shared.ports.object_storage import Storage
from shared.ports.object_versions import Versions, delete_versions
from shared.schemas.purge import PurgedObject


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted from the storage, and what was seen there afterwards."""

    objects: tuple[PurgedObject, ...]
    versions: Versions


def delete_all(
    storage: Storage, prefix: str, kept: str | None = None, removed: frozenset[str] = frozenset()
) -> Deleted:
    """Delete an object, or what is below a prefix, with all versions, and look that it is gone.

    What lies below `kept` stays, but for the keys in `removed`.

    Raises:
        Unavailable: the storage still lists some of it.
    """
    gone = _listed(storage, prefix, kept, removed)
    for found in gone:
        storage.delete(found.key)
    versions = delete_versions(storage.url, prefix, kept)
    for key in removed:
        delete_versions(storage.url, key)
    if left := _listed(storage, prefix, kept, removed):
        raise Unavailable(f"The object storage still lists {left[0].key!r} after it was deleted.")
    return Deleted(gone, versions)


def _listed(
    storage: Storage, prefix: str, kept: str | None, removed: frozenset[str] = frozenset()
) -> tuple[PurgedObject, ...]:
    """Return what is listed. JuiceFS lists the folders that were there, too: without a byte,
    they hold nothing.
    """
    return tuple(
        PurgedObject(key=found.key, bytes=found.size)
        for found in storage.find(prefix)
        if found.size
        and not (kept and found.key.startswith(f"{kept}/") and found.key not in removed)
    )

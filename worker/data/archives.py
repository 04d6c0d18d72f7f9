"""A data set from wherever it is: a folder, an archive, an object in storage. What is in it,
`shared.files.image_sets` says.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from shared.crypto.archive_encryption import SealBroken, unsealed
from shared.errors import InvalidRequest, JobFailure
from shared.files.dataset_layouts import Labelled, folder_classes, is_image
from shared.files.errors import invalid
from shared.files.image_archives import ArchiveLimits, check, file_sha256, read_set
from shared.files.image_sets import Found
from shared.ports.object_storage import ObjectMissing, Storage
from shared.schemas.spec import DataSource
from shared.settings import get_settings
from worker.data.images import ImageSet

MAX_DETAIL_CHARACTERS = 1500


def open_images(source: DataSource, *, scratch: Path, storage: Storage | None = None) -> ImageSet:
    """Return the images of a data set, unpacked below `scratch` unless they lie in a folder
    already.

    `source.uri` is `storage:<key>` of an archive, or the path of an archive or of a folder of what
    would be packed.

    Raises:
        JobFailure: `invalid_dataset`, saying what is wrong with it.
    """
    try:
        if source.uri.startswith("storage:") and storage is not None:
            path = _downloaded(source, storage, scratch / "archive")
        else:
            path = Path(source.uri)
        return read_images(source.name, path, scratch / "images", skip_invalid=source.skip_invalid)
    except InvalidRequest as error:
        detail = f"The data set {source.name!r} cannot be used: {said(error)}"
        raise JobFailure("invalid_dataset", detail) from error
    except SealBroken as error:
        raise JobFailure(
            "invalid_dataset", f"The data set {source.name!r} cannot be used: {error.detail}"
        ) from error
    except ObjectMissing as error:
        raise JobFailure(
            "invalid_dataset", f"The data set {source.name!r} is not there any more."
        ) from error


def said(error: InvalidRequest) -> str:
    """Return what an error says of a set, in one line."""
    return "; ".join(one.detail for one in error.errors)[:MAX_DETAIL_CHARACTERS]


def _downloaded(source: DataSource, storage: Storage, path: Path) -> Path:
    """Copy an archive into `path`, opening its seal on the way: it is readable there and nowhere
    else.
    """
    key = source.uri.removeprefix("storage:")
    if source.data_key is None or source.id is None:
        return storage.download(key, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in unsealed(storage.stream(key), base64.b64decode(source.data_key), source.id):
            file.write(chunk)
    return path


def read_images(name: str, path: Path, scratch: Path, *, skip_invalid: bool = False) -> ImageSet:
    """Return the images of an archive, written below `scratch`, or of a folder, where they lie.

    With `skip_invalid`, what cannot be used is left out, as it was when the archive came in.

    Raises:
        InvalidRequest: it is no set of images, or breaks a rule.
    """
    limits = ArchiveLimits.of(get_settings())
    places: dict[str, Path] = {}

    def take(found: Found) -> None:
        if skip_invalid:
            check(found, limits)
        if found.path is not None:
            places[found.name] = found.path
            return
        place = scratch / f"{len(places):08d}{PurePosixPath(found.name).suffix.lower()}"
        place.write_bytes(found.content or b"")
        places[found.name] = place

    scratch.mkdir(parents=True, exist_ok=True)
    contents = read_set(path, limits, take, skip_invalid=skip_invalid)
    if not path.is_dir():
        return labelled_set(name, file_sha256(path), contents.images, places)
    hashes = {path / file: file_sha256(path / file) for file in _visible(path)}
    known = {place: hashes[place] for place in places.values() if place in hashes}
    return labelled_set(name, _digest_of(path, hashes), contents.images, places, known)


def labelled_set(
    name: str,
    digest: str,
    images: Sequence[Labelled],
    places: Mapping[str, Path],
    known: dict[Path, str] | None = None,
) -> ImageSet:
    """Return images in their order, each with its class and caption.

    Args:
        name: of the set.
        digest: of the set.
        images: names in the set, with classes and captions.
        places: where the image of each name lies.
        known: content hashes that the caller has computed already.
    """
    classes = tuple(sorted({image.label for image in images}))
    index = {label: number for number, label in enumerate(classes)}
    captions = tuple(image.caption for image in images)
    return ImageSet(
        name=name,
        digest=digest,
        paths=tuple(places[image.name] for image in images),
        labels=tuple(index[image.label] for image in images),
        classes=classes,
        captions=captions if any(captions) else (),
        known=known or {},
        members={place: member for member, place in places.items()},
    )


def folder_files(folder: Path) -> list[PurePosixPath]:
    """Return the images below a folder, sorted, relative to it. Hidden files and folders are
    left out.
    """
    return [name for name in _visible(folder) if is_image(name)]


def _visible(folder: Path) -> list[PurePosixPath]:
    names = (
        PurePosixPath(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
    )
    return sorted(name for name in names if not any(part.startswith(".") for part in name.parts))


def image_set(name: str, digest: str, folder: Path, files: Iterable[PurePosixPath]) -> ImageSet:
    """Return the images among `files` below `folder`, in their order, each with its folder's class.

    Raises:
        InvalidRequest: they are not class folders.
    """
    names = [str(file) for file in files]
    wrong: list[str] = []
    found = folder_classes(
        {name: name for name in names}, lambda member, why: wrong.append(f"member {member!r} {why}")
    )
    if wrong:
        raise invalid(wrong[0])
    return labelled_set(name, digest, found.images, {member: folder / member for member in names})


def folder_digest(folder: Path, files: Iterable[PurePosixPath]) -> str:
    """Return the SHA-256 of the sorted (path, content) pairs: of `<SHA-256 of the content>
    <path>` lines.
    """
    return _digest_of(folder, {folder / file: file_sha256(folder / file) for file in files})


def _digest_of(folder: Path, hashes: Mapping[Path, str]) -> str:
    lines = (
        f"{digest}  {file.relative_to(folder).as_posix()}\n" for file, digest in hashes.items()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()

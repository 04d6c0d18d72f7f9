"""A data set from wherever it is: a class folder, an archive, WebDataset shards, an object in storage."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from shared.archives import ArchiveLimits, archive_format, extract_archive, file_sha256
from shared.errors import InvalidRequest, JobFailure
from shared.layouts import folder_classes, invalid, is_image
from shared.schemas.spec import DataSource
from shared.sealing import SealBroken, unsealed
from shared.settings import get_settings
from shared.storage import ObjectMissing, Storage
from worker.data.images import ImageSet
from worker.data.webdataset import unpack_shards


def open_images(source: DataSource, *, scratch: Path, storage: Storage | None = None) -> ImageSet:
    """Return the images of a data set, unpacked below `scratch` unless they lie in a folder already.

    `source.uri` is `storage:<key>` of an archive, or the path of an archive, of a folder `<class>/<image>`, or of a
    folder of WebDataset shards `*.tar` (with a `classnames.txt` where labels are numbers).

    Raises:
        JobFailure: `invalid_dataset`, saying what is wrong with it.
    """
    try:
        if source.uri.startswith("storage:") and storage is not None:
            path = _downloaded(source, storage, scratch / "archive")
        else:
            path = Path(source.uri)
        return _open_path(source.name, path, scratch / "images")
    except InvalidRequest as error:
        detail = f"The data set {source.name!r} cannot be used: {error.errors[0].detail}"
        raise JobFailure("invalid_dataset", detail) from error
    except SealBroken as error:
        raise JobFailure("invalid_dataset", f"The data set {source.name!r} cannot be used: {error.detail}") from error
    except ObjectMissing as error:
        raise JobFailure("invalid_dataset", f"The data set {source.name!r} is not there any more.") from error


def _downloaded(source: DataSource, storage: Storage, path: Path) -> Path:
    """Copy an archive into `path`, opening its seal on the way: it is readable there and nowhere else."""
    key = source.uri.removeprefix("storage:")
    if source.data_key is None or source.id is None:
        return storage.download(key, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in unsealed(storage.stream(key), base64.b64decode(source.data_key), source.id):
            file.write(chunk)
    return path


def _open_path(name: str, path: Path, scratch: Path) -> ImageSet:
    limits = ArchiveLimits.of(get_settings())
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        if any(archive_format(shard, limits) == "zip" for shard in shards):
            raise invalid("holds a zip under the name of a shard")
        if shards:
            return unpack_shards(name, shards, _joint_digest(path, shards), scratch)
        files = folder_files(path)
        known = {path / file: file_sha256(path / file) for file in files}
        return image_set(name, _digest_of(path, known), path, files, known)
    if archive_format(path, limits) == "webdataset":
        return unpack_shards(name, [path], file_sha256(path), scratch)
    extract_archive(path, scratch, limits)
    return image_set(name, file_sha256(path), scratch, folder_files(scratch))


def folder_files(folder: Path) -> list[PurePosixPath]:
    """Return the images below a folder, sorted, relative to it. Hidden files and folders are left out."""
    names = (PurePosixPath(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if is_image(name) and not any(part.startswith(".") for part in name.parts))


def image_set(
    name: str, digest: str, folder: Path, files: Iterable[PurePosixPath], known: dict[Path, str] | None = None
) -> ImageSet:
    """Return the images `files` below `folder`, in their order, each with its folder's class.

    `known` are content hashes that the caller has computed already.

    Raises:
        InvalidRequest: they are not class folders.
    """
    names = list(files)
    found = folder_classes(names)
    classes = tuple(sorted(set(found)))
    index = {label: number for number, label in enumerate(classes)}
    paths = tuple(folder / file for file in names)
    return ImageSet(name, digest, paths, tuple(index[c] for c in found), classes, known=known or {})


def folder_digest(folder: Path, files: Iterable[PurePosixPath]) -> str:
    """Return the SHA-256 of the sorted (path, content) pairs: of `<SHA-256 of the content>  <path>` lines."""
    return _joint_digest(folder, (folder / file for file in files))


def _joint_digest(folder: Path, files: Iterable[Path]) -> str:
    return _digest_of(folder, {file: file_sha256(file) for file in files})


def _digest_of(folder: Path, hashes: Mapping[Path, str]) -> str:
    lines = (f"{digest}  {file.relative_to(folder).as_posix()}\n" for file, digest in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()

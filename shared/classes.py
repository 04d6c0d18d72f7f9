"""Which classes a data set on disk holds, and whether those of a request's data sets fit its target. Needs no torch."""

from collections.abc import Collection, Mapping
from pathlib import Path

from shared.archives import ArchiveLimits, inspect_archive, set_classes
from shared.errors import FieldError
from shared.layouts import UNLABELLED
from shared.schemas.request import ErasureRequest

FORGET = ("/data/forget", "/data/forget_test")
RETAIN = ("/data/retain", "/data/retain_test")


def classes_at(path: Path, limits: ArchiveLimits) -> set[str]:
    """Return the classes of an archive, or of a folder of what would be packed, such as class folders or shards.

    Raises:
        InvalidRequest: it is none of these, or breaks a rule.
    """
    return set_classes(path, limits) if path.is_dir() else set(inspect_archive(path, limits).classes)


def class_errors(request: ErasureRequest, classes: Mapping[str, Collection[str]]) -> list[FieldError]:
    """Return what is wrong with the classes of a request's data sets.

    Args:
        request: what was asked.
        classes: the classes of each data set by the pointer that names it in the request, e.g. `/data/forget`.
    """
    errors = [_forget_error(request, pointer, classes[pointer]) for pointer in FORGET if pointer in classes]
    if _measured_on_own_data(request, classes):
        errors += [_retain_error(request, pointer, classes[pointer]) for pointer in RETAIN if pointer in classes]
    errors += [_earlier_error(request, number, classes) for number in range(len(request.data.earlier))]
    return [error for error in errors if error is not None]


def _measured_on_own_data(request: ErasureRequest, classes: Mapping[str, Collection[str]]) -> bool:
    """True where the images of `data.retain` are measured: no evaluation set shows what is to be forgotten."""
    gone = set(request.target.names())
    shown = any(gone & set(found) for pointer, found in classes.items() if pointer.startswith("/data/evaluation/"))
    return request.target.type == "subgroup" or not shown


def _forget_error(request: ErasureRequest, pointer: str, found: Collection[str]) -> FieldError | None:
    other = set(found) - set(request.target.names())
    if len(set(found)) < 2 or not other:
        return None  # one folder may have any name: its images are what counts
    return FieldError(pointer, f"holds the class {min(other)!r}, which is not to be forgotten; take it out")


def _earlier_error(request: ErasureRequest, number: int, classes: Mapping[str, Collection[str]]) -> FieldError | None:
    """The images of an earlier erasure are named, among the labels that they are measured with."""
    pointer = f"/data/earlier/{number}"
    found, labels = classes.get(f"{pointer}/dataset", ()), request.data.earlier[number].labels or request.target.labels
    if UNLABELLED in found:
        return FieldError(
            f"{pointer}/dataset", "has no class folders; put each image into a folder with the name of its class"
        )
    unknown = set(found) - set(labels) if labels else ()
    if unknown:
        detail = f"lacks {min(unknown)!r}, a class of the data set; give the labels that these images are measured with"
        return FieldError(f"{pointer}/labels", detail)
    return None


def _retain_error(request: ErasureRequest, pointer: str, found: Collection[str]) -> FieldError | None:
    gone, labels = set(request.target.names()), set(request.target.labels)
    if UNLABELLED in found and UNLABELLED not in labels:
        return FieldError(pointer, "has no class folders; put each image into a folder with the name of its class")
    if request.target.type == "class" and gone & set(found):
        name = min(gone & set(found))
        return FieldError(pointer, f"holds images of {name!r}, which is to be forgotten; take them out")
    if labels and set(found) - labels:
        name = min(set(found) - labels)
        return FieldError(
            pointer, f"holds the class {name!r}, which is not among target.labels; add it, or take it out"
        )
    if not labels and set(found) <= gone:
        return FieldError(pointer, f"holds {min(gone)!r} alone; add images of other classes, or give target.labels")
    return None

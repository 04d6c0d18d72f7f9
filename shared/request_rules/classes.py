"""Which classes a data set on disk holds, what they are to a request, and whether they fit it.
Needs no torch.

A folder is the label that its name is for CLIP (`shared.names`): `horse` is `Horse`,
`fire_truck` is `fire truck`. The first evaluation set that shows the class to be forgotten is
the target's own: it is measured with the request's labels, and images of other folders are left
out. Any other set whose folders are not all labels keeps its own names."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from shared.errors import FieldError
from shared.files.dataset_layouts import UNLABELLED
from shared.files.image_archives import ArchiveLimits, inspect_archive, set_classes
from shared.names import Spellings, key_set, like
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import MeasuredSet

FORGET = ("/data/forget", "/data/forget_test")
RETAIN = ("/data/retain", "/data/retain_test")
NO_FOLDERS = "has no class folders; put each image into a folder with the name of its class"
Found = Mapping[str, Collection[str]]
"""The classes of each data set by the pointer that names it in the request, e.g. `/data/forget`."""


def class_counts(path: Path, limits: ArchiveLimits) -> dict[str, int]:
    """Return how many images of each class there are in an archive, or in a folder of what would be
    packed, such as class folders or shards.

    Raises:
        InvalidRequest: it is none of these, or breaks a rule.
    """
    return set_classes(path, limits) if path.is_dir() else inspect_archive(path, limits).classes


def spelled(folders: Iterable[str], labels: Iterable[str]) -> dict[str, str]:
    """Return the name of each folder: the label that it is, else its own; the first one where
    several folders are one name.
    """
    given = sorted(folders)
    known = Spellings((*labels, *given))
    return {folder: known.get(folder) or folder for folder in given}


def labels_of(request: ErasureRequest, retained: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of a request: its own, else the target's class and those of the images
    that stay.
    """
    return request.target.labels or tuple(
        sorted(Spellings((*request.target.names(), *sorted(retained))))
    )


def measured_sets(
    request: ErasureRequest,
    labels: tuple[str, ...],
    evaluation: Iterable[tuple[str, Mapping[str, int]]],
) -> tuple[MeasuredSet, ...]:
    """Return what each evaluation set is to a request.

    Args:
        request: what was asked.
        labels: its labels, see `labels_of`.
        evaluation: the name that the request gives each set, and how many images of each class it
            holds.
    """
    gone = key_set(request.target.names()) if request.target.type == "class" else set()
    known, sets = Spellings(labels), list[MeasuredSet]()
    for name, counts in evaluation:
        names, own = spelled(counts, labels), not any(entry.role == "target" for entry in sets)
        others = {folder: counts[folder] for folder in names if folder not in known}
        if own and gone & key_set(counts):
            kept = {folder: count for folder, count in counts.items() if folder not in others}
            sets.append(_set(name, "target", merged(kept, names), labels, others))
        else:
            own_labels = tuple(sorted(set(names.values()))) if others else labels
            sets.append(_set(name, "transfer", merged(counts, names), own_labels))
    return tuple(sets)


def merged(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Return how many images there are under each of `names`; folders of one name are added up."""
    total = Counter[str]()
    for folder, count in counts.items():
        total[names[folder]] += count
    return dict(sorted(total.items()))


def _set(
    name: str,
    role: str,
    classes: dict[str, int],
    labels: tuple[str, ...],
    left_out: dict[str, int] | None = None,
) -> MeasuredSet:
    values = {
        "name": name,
        "role": role,
        "classes": classes,
        "labels": labels,
        "left_out": left_out or {},
    }
    return MeasuredSet.model_validate(values)


def class_errors(request: ErasureRequest, classes: Found) -> list[FieldError]:
    """Return what is wrong with the classes of a request's data sets."""
    errors = [
        _forget_error(request, pointer, classes[pointer])
        for pointer in FORGET
        if pointer in classes
    ]
    errors += [
        _retain_error(request, pointer, classes[pointer]) for pointer in own_set(request, classes)
    ]
    errors += [
        _evaluation_error(request, number, classes)
        for number in range(len(request.data.evaluation))
    ]
    errors += [
        _earlier_error(request, number, classes) for number in range(len(request.data.earlier))
    ]
    return [error for error in errors if error is not None]


def own_set(request: ErasureRequest, classes: Found) -> tuple[str, ...]:
    """Return the pointers of the images of what stays that are measured: the target's own set,
    beside its own images.

    Where an evaluation set shows what is to be forgotten, test images alone are measured beside it.
    """
    measured: tuple[str, ...] = RETAIN
    if request.target.type == "class" and _shown(request, classes):
        measured = RETAIN[1:]
    return tuple(pointer for pointer in measured if pointer in classes)


def _shown(request: ErasureRequest, classes: Found) -> bool:
    gone = key_set(request.target.names())
    return any(
        gone & key_set(found)
        for pointer, found in classes.items()
        if pointer.startswith("/data/evaluation/")
    )


def _forget_error(
    request: ErasureRequest, pointer: str, found: Collection[str]
) -> FieldError | None:
    names = request.target.names()
    other = [folder for folder in sorted(found) if folder not in Spellings(names)]
    if other and len(key_set(found)) > 1:
        return FieldError(
            pointer, f"holds the class {other[0]!r}, which is not to be forgotten; take it out"
        )
    if other and other[0] in Spellings(request.target.labels):
        detail = (
            f"which is another of the labels; call the folder {names[0]!r}, or give images of that"
        )
        return FieldError(pointer, f"holds the class {other[0]!r}, {detail}")
    if other and len(names) > 1:
        detail = (
            "but several classes are to be forgotten: put the images of each into a folder "
            "with its name"
        )
        return FieldError(pointer, f"holds the folder {other[0]!r} alone, {detail}")
    return None


def _evaluation_error(request: ErasureRequest, number: int, classes: Found) -> FieldError | None:
    """A set shows classes by name. Where none shows the target, a folder that is nearly called
    so is a slip.
    """
    pointer = f"/data/evaluation/{number}/dataset"
    found, target = classes.get(pointer, ()), request.target
    if UNLABELLED in found and UNLABELLED not in Spellings(target.labels):
        return FieldError(pointer, NO_FOLDERS)
    if target.type == "subgroup" or _shown(request, classes):
        return None
    for name in target.names():
        for other in (name, *target.synonyms_of(name)):
            near = like(
                other,
                (folder for folder in sorted(found) if folder not in Spellings(target.labels)),
            )
            if near is not None:
                detail = (
                    f"holds {near!r}, which is nearly {other!r}, a name of what is to be "
                    f"forgotten, and no set holds {name!r}"
                )
                return FieldError(pointer, f"{detail}; call the folder {name!r}, or take it out")
    return None


def _earlier_error(request: ErasureRequest, number: int, classes: Found) -> FieldError | None:
    """The images of an earlier erasure are named, among the labels that they are measured with."""
    pointer = f"/data/earlier/{number}"
    found, labels = (
        classes.get(f"{pointer}/dataset", ()),
        request.data.earlier[number].labels or request.target.labels,
    )
    if UNLABELLED in found:
        return FieldError(f"{pointer}/dataset", NO_FOLDERS)
    unknown = (
        [folder for folder in sorted(found) if folder not in Spellings(labels)] if labels else []
    )
    if unknown:
        detail = (
            f"lacks {unknown[0]!r}, a class of the data set; give the labels that these "
            "images are measured with"
        )
        return FieldError(f"{pointer}/labels", detail)
    return None


def _retain_error(
    request: ErasureRequest, pointer: str, found: Collection[str]
) -> FieldError | None:
    names, labels = Spellings(request.target.names()), Spellings(request.target.labels)
    if UNLABELLED in found and UNLABELLED not in labels:
        return FieldError(pointer, NO_FOLDERS)
    gone = [folder for folder in sorted(found) if folder in names]
    if request.target.type == "class" and gone:
        return FieldError(
            pointer, f"holds images of {gone[0]!r}, which is to be forgotten; take them out"
        )
    unknown = [folder for folder in sorted(found) if folder not in labels] if len(labels) else []
    if unknown:
        return FieldError(
            pointer,
            (
                f"holds the class {unknown[0]!r}, which is not among target.labels; add it, or "
                "take "
                "it "
                "out"
            ),
        )
    if not len(labels) and len(gone) == len(found):
        return FieldError(
            pointer, f"holds {gone[0]!r} alone; add images of other classes, or give target.labels"
        )
    return None

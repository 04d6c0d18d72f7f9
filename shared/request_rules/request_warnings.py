"""What a request should be told though it is no error: names that were mapped, and folders and
labels without each other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from shared.files.dataset_layouts import UNLABELLED
from shared.names import Spellings, key_set, like, name_key
from shared.request_rules.classes import FORGET, own_set, spelled
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import MeasuredSet, RequestWarning

SHOWN = 3
"""How many names a warning lists; it says how many there are."""

Counts = Mapping[str, Mapping[str, int]]
"""Images of each class of each data set, by the pointer that names the set in the request."""


def request_warnings(
    request: ErasureRequest, labels: tuple[str, ...], sets: Sequence[MeasuredSet], counts: Counts
) -> tuple[RequestWarning, ...]:
    """Return the warnings of a request that has no errors.

    Args:
        request: what was asked.
        labels: its labels, see `shared.request_rules.classes.labels_of`.
        sets: what its evaluation sets are to it, in the order of the request.
        counts: the classes of all its data sets.
    """
    found = [
        *_spellings(request, labels, counts),
        *_of_any_name(request, counts),
        *_unshown(request, sets),
        *(
            warning
            for number, entry in enumerate(sets)
            for warning in _of_set(number, entry, labels)
        ),
        *_own_images(request, labels, counts),
        *_unnamed(request, labels, counts),
    ]
    return tuple(RequestWarning(pointer=pointer, detail=detail) for pointer, detail in found)


def _spellings(
    request: ErasureRequest, labels: tuple[str, ...], counts: Counts
) -> Iterator[tuple[str, str]]:
    """Say which folders are taken as a label that is spelled otherwise, and which are one name."""
    for pointer, folders in counts.items():
        if pointer == "/data/proxy":
            continue  # nobody reads its names
        names = spelled(folders, _labels_at(request, pointer, labels))
        others = [f"{folder!r} as {name!r}" for folder, name in names.items() if folder != name]
        if others:
            yield (
                pointer,
                (
                    f"takes {_listed(others, 'folders')}: for CLIP they are one name; rename them "
                    "if "
                    "they are not"
                ),
            )


def _of_any_name(request: ErasureRequest, counts: Counts) -> Iterator[tuple[str, str]]:
    """Say that the one folder of what is to be forgotten is taken as the class, whatever it is
    called.
    """
    known = Spellings(request.target.names())
    for pointer in FORGET if request.target.type == "class" else ():
        others = [
            name for name in counts.get(pointer, ()) if name not in known and name != UNLABELLED
        ]
        if others:
            yield (
                pointer,
                (
                    f"takes the images in its one folder, {others[0]!r}, as of "
                    f"{request.target.names()[0]!r}"
                ),
            )


def _labels_at(request: ErasureRequest, pointer: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels that the images of a set are named with."""
    if pointer.startswith("/data/earlier/"):
        return request.data.earlier[int(pointer.split("/")[3])].labels or labels
    return labels


def _unshown(request: ErasureRequest, sets: Sequence[MeasuredSet]) -> Iterator[tuple[str, str]]:
    target = request.target
    if target.type == "subgroup" or not sets:
        return
    own = next((entry for entry in sets if entry.role == "target"), None)
    missing = [name for name in target.names() if own is None or name not in own.classes]
    if missing:
        where = f"the set {own.name!r}" if own else "any evaluation set"
        detail = (
            "what was forgotten of it is not measured there; name the folders as in "
            "target.labels, or add images"
        )
        yield (
            "/target/class",
            f"has no folder of {_listed(map(repr, missing), 'classes')} in {where}: {detail}",
        )


def _of_set(number: int, entry: MeasuredSet, labels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    pointer = f"/data/evaluation/{number}/dataset"
    if entry.role == "target":
        if entry.left_out:
            missing = [label for label in labels if label not in entry.classes]
            listed = _listed((_with_near(folder, missing) for folder in entry.left_out), "folders")
            images = sum(entry.left_out.values())
            detail = (
                f"{_images(images)} left out of what is measured; add the labels, or take "
                "the "
                "folders out"
            )
            yield pointer, f"holds {listed}, for which there is no label: {detail}"
        yield from _without_folder(pointer, entry.classes, labels)
        return
    shared = key_set(entry.classes) & key_set(labels)
    if shared and set(entry.labels) != set(labels):
        own = [repr(name) for name in entry.labels if name_key(name) not in shared]
        detail = f"it is measured with its own {len(entry.labels)} names, not with target.labels"
        yield (
            pointer,
            (
                f"shares {len(shared)} of its names with the labels and has "
                f"{_listed(own, 'names')} "
                f"beside them: {detail}"
            ),
        )
    if len(entry.labels) == 1:
        yield (
            pointer,
            (
                "holds one class alone: whatever the model answers is right, so it says nothing; "
                "add "
                "other classes"
            ),
        )


def _without_folder(
    pointer: str, classes: Iterable[str], labels: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    shown = key_set(classes)
    missing = [repr(label) for label in labels if name_key(label) not in shown]
    if missing:
        detail = (
            "what the edit does to them is not measured there; add images of them, if it should be"
        )
        yield pointer, f"holds no folder of {_listed(missing, 'labels')}: {detail}"


def _own_images(
    request: ErasureRequest, labels: tuple[str, ...], counts: Counts
) -> Iterator[tuple[str, str]]:
    """Say which labels no measured image of `data` shows."""
    measured = own_set(request, counts)
    shown = [name for pointer in measured for name in counts[pointer]]
    if measured and request.target.labels:
        yield from _without_folder(measured[-1], (*shown, *request.target.names()), labels)


def _unnamed(
    request: ErasureRequest, labels: tuple[str, ...], counts: Counts
) -> Iterator[tuple[str, str]]:
    """Say which images a method may learn from, but not by name."""
    known = Spellings(labels)
    for pointer in ("/data/retain", "/data/calibration"):
        if pointer in own_set(request, counts) or pointer not in counts:
            continue
        others = [
            repr(name) for name in counts[pointer] if name not in known and name != UNLABELLED
        ]
        if others:
            listed = _listed(others, "folders")
            yield (
                pointer,
                (
                    f"holds {listed}, for which there is no label: a method may see these images, "
                    "but "
                    "not by name"
                ),
            )


def _with_near(folder: str, labels: Sequence[str]) -> str:
    near = like(folder, labels)
    return f"{folder!r} (nearly {near!r})" if near else repr(folder)


def _listed(names: Iterable[str], noun: str) -> str:
    given = list(names)
    more = f" and {len(given) - SHOWN} more {noun}" if len(given) > SHOWN else ""
    return ", ".join(given[:SHOWN]) + more


def _images(count: int) -> str:
    return "its image is" if count == 1 else f"their {count} images are"

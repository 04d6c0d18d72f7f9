"""What is odd about a set of images that was accepted, in sentences: nothing is left out or put
together in silence.
"""

from collections.abc import Mapping, Sequence

from shared.files.dataset_layouts import FILLERS, SPLITS, UNLABELLED
from shared.names import name_key

FEW_CLASSES = 5
"""How many classes a warning names."""
ODD_NAMES = FILLERS | SPLITS | {"unknown", "other", "misc", "new folder", "photos", "pictures"}


def warnings_of(
    layout: str,
    classes: Mapping[str, int],
    left_out: Mapping[str, int],
    skipped: int,
    notes: Sequence[str],
) -> tuple[str, ...]:
    """Return the warnings about a set.

    Args:
        layout: as it was understood.
        classes: class name -> number of images.
        left_out: kind of member -> how many were left out.
        skipped: how many members cannot be used, and were left out for that.
        notes: what the reader has to say.
    """
    found = [*notes]
    if layout == UNLABELLED:
        found.append("no image lies in a class folder: all are of one class, 'unlabelled'")
    found += _twins(classes)
    found += _odd(classes)
    if left_out:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        found.append(
            f"{sum(left_out.values())} members are no images of the set and were left out: {listed}"
        )
    if skipped:
        found.append(f"{skipped} members cannot be used and were left out (skip_invalid)")
    return tuple(found)


def _twins(classes: Mapping[str, int]) -> list[str]:
    """Name classes that differ in case, white space, or _ and - alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name_key(name.replace("-", " ")), []).append(name)
    twins = [names for names in alike.values() if len(names) > 1]
    found = [
        f"the classes {_listed(sorted(names))} may be one, written differently"
        for names in twins[:FEW_CLASSES]
    ]
    if len(twins) > FEW_CLASSES:
        found.append(f"so may {len(twins) - FEW_CLASSES} more groups of classes")
    return found


def _odd(classes: Mapping[str, int]) -> list[str]:
    single = [name for name, count in classes.items() if count == 1]
    found = []
    if single and len(single) < len(classes):
        found.append(f"{len(single)} classes have one image: {_listed(single)}")
    elif single:
        found.append("each class has one image alone")
    odd = [name for name in classes if name.casefold() in ODD_NAMES]
    if odd:
        found.append(
            f"{_listed(odd)} is the name of a class here: is it a folder of something else?"
        )
    numbers = [name for name in classes if name.isdecimal()]
    if numbers and len(numbers) == len(classes):
        found.append("the classes are numbers; a classnames.txt, one name a line, gives them names")
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:FEW_CLASSES])
    return shown if len(names) <= FEW_CLASSES else f"{shown} and {len(names) - FEW_CLASSES} more"

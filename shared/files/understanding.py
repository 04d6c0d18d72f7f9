"""Which layout the members of a set have, and what class each image has then: from names and
texts, with no file opened.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.files.dataset_layouts import (
    CLASS_NAMES,
    LABEL_FIELDS,
    Folders,
    Labelled,
    Refuse,
    Samples,
    by_path,
    caption_of,
    class_names,
    folder_classes,
    sample_key,
    samples,
    text_of,
)
from shared.files.errors import invalid
from shared.files.label_tables import Table, read_table, table_classes

NAMED_FIELDS = frozenset(LABEL_FIELDS) - {"txt", "json"}
"""Of samples: they can be nothing but labels."""
LOOKED_AT = 20
"""Members of a kind that are opened to tell what it is."""


@dataclass(frozen=True, slots=True)
class Read:
    """Members of a set, by name."""

    images: Sequence[str]
    texts: Mapping[str, bytes]
    """Those that may be labels or captions."""
    tables: Mapping[str, bytes]
    shards: Sequence[str]
    """Names of archives within it; those of their members begin with them."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was understood."""

    layout: str
    images: Sequence[Labelled]
    unused: Sequence[str]
    """Members that say nothing here."""
    notes: Sequence[str]


def understood(read: Read, refuse: Refuse) -> Told:
    """Return the layout of a set and the class of each image.

    Args:
        read: its members.
        refuse: called with each image that cannot be used, and why.

    Raises:
        InvalidRequest: it contradicts itself, or a table of labels cannot be understood.
    """
    names_at = min(
        (n for n in read.texts if n.rpartition("/")[2] == CLASS_NAMES),
        key=lambda n: n.count("/"),
        default=None,
    )
    names = class_names(read.texts[names_at]) if names_at else []
    texts = {
        name: content
        for name, content in read.texts.items()
        if name.rpartition("/")[2] != CLASS_NAMES
    }
    wrong: list[tuple[str, str]] = []
    folders = folder_classes(_places(read), lambda name, why: wrong.append((name, why)))
    several = not wrong and len({image.label for image in folders.images}) > 1
    if not (several and _only_beside(read.images, texts)):
        found = samples(read.images, texts, names, refuse)
        if found is not None:
            return _as_samples(read, texts, found)
    tables = [
        table
        for table in (read_table(n, c, read.images) for n, c in read.tables.items())
        if table is not None
    ]
    labelled = [table for table in tables if table.labelled]
    if several:
        _check_agreement(folders, labelled)
    elif labelled:
        return _from_tables(read, texts, labelled, names, refuse)
    for name, why in wrong:
        refuse(name, why)
    return _as_folders(read, texts, folders, tables)


def _places(read: Read) -> dict[str, str]:
    """Return where each image lies: class folders of several shards are put together, a tar of
    images alone is a class.
    """
    if not read.shards:
        return {name: name for name in read.images}
    heads = sorted(read.shards, key=len, reverse=True)
    inner = {
        name: name.removeprefix(next(f"{h}/" for h in heads if name.startswith(f"{h}/")))
        for name in read.images
    }
    return (
        inner
        if any("/" in place for place in inner.values())
        else {name: name for name in read.images}
    )


def _only_beside(images: Iterable[str], texts: Mapping[str, bytes]) -> bool:
    """True if what lies beside images in class folders is captions or notes: text files, and
    JSON without a label.
    """
    beside = {sample_key(name)[0] for name in images}
    jsons: list[str] = []
    for name in texts:
        key, field = sample_key(name)
        if key in beside and field in NAMED_FIELDS:
            return False
        if key in beside and field == "json" and len(jsons) < LOOKED_AT:
            jsons.append(name)
    return not any(_has_label(texts[name]) for name in jsons)


def _has_label(content: bytes) -> bool:
    try:
        value = json.loads(text_of(content))
    except (ValueError, RecursionError):
        return True  # whoever reads it as a label says what is wrong
    return isinstance(value, dict) and "label" in value


def _as_samples(read: Read, texts: Mapping[str, bytes], found: Samples) -> Told:
    unused = [*found.extra, *read.tables, *(name for name in texts if name not in found.used)]
    return Told("webdataset", found.images, unused, ())


def _from_tables(
    read: Read,
    texts: Mapping[str, bytes],
    tables: Sequence[Table],
    names: Sequence[str],
    refuse: Refuse,
) -> Told:
    images = sorted(read.images, key=by_path)
    used = {table.name for table in tables}
    listed = " and ".join(repr(name) for name in sorted(used))
    notes = [f"the classes come from {listed}"]
    notes += [
        f"{table.unknown} rows of {table.name!r} name no image" for table in tables if table.unknown
    ]
    unused = [*texts, *(name for name in read.tables if name not in used)]
    return Told("label_table", table_classes(tables, images, names, refuse), unused, notes)


def _check_agreement(folders: Folders, tables: Sequence[Table]) -> None:
    """Refuse a set whose folders and tables give an image different classes."""
    labels = {image.name: image.label for image in folders.images}
    for table in tables:
        for name, value, _ in table.rows:
            text = str(value).strip()
            if name in labels and text != labels[name] and not text.isdecimal():
                raise invalid(
                    f"member {name!r} is of class {labels[name]!r} by its folder, and of class "
                    f"{text[:100]!r} by "
                    f"{table.name!r}; take the table out, or put the images into one folder"
                )


def _as_folders(
    read: Read, texts: Mapping[str, bytes], folders: Folders, tables: Sequence[Table]
) -> Told:
    captions = {row[0]: row[2] for table in tables for row in table.rows if row[2] is not None}
    beside = {key: name for name in texts if (key := _caption_key(name)) is not None}
    used = set()
    images = []
    for image in sorted(folders.images, key=lambda image: by_path(image.name)):
        at = beside.get(image.name.rpartition(".")[0])
        if at is not None:
            used.add(at)
        caption = captions.get(image.name) or (
            caption_of(texts[at].decode("utf-8-sig", "replace")) if at else None
        )
        images.append(Labelled(image.name, image.label, caption))
    notes = [*folders.notes]
    if used:
        notes.append(
            f"the classes come from the folders; {len(used)} .txt files beside images were "
            "read "
            "as "
            "captions"
        )
    known = {table.name for table in tables}
    notes += [
        f"{name!r} was not read: it names no image here"
        for name in sorted(set(read.tables) - known)[:LOOKED_AT]
    ]
    captioning = {table.name for table in tables if any(row[2] is not None for row in table.rows)}
    unused = [
        *(name for name in read.tables if name not in captioning),
        *(name for name in texts if name not in used),
    ]
    return Told(folders.layout, images, unused, notes)


def _caption_key(name: str) -> str | None:
    return name.removesuffix(".txt") if name.endswith(".txt") else None

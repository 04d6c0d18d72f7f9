"""WebDataset shards to images on disk. The shards have been checked by `shared.archives` before they come here."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset

from shared.layouts import (
    CLASS_NAMES,
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    class_names,
    invalid,
    sample_caption,
    sample_class,
)
from shared.members import words
from worker.data.images import ImageSet


def unpack_shards(name: str, shards: Sequence[Path], digest: str, folder: Path) -> ImageSet:
    """Write the images of all shards, in their order, into `folder` and return them with their classes and captions.

    Numbers as labels count the lines of `classnames.txt`, a member of the first shard or a file beside it.

    Raises:
        InvalidRequest: an image has no label, or the label is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = shards[0].parent / CLASS_NAMES
    names = class_names(beside.read_bytes()) if beside.is_file() else []
    paths: list[Path] = []
    found: list[tuple[dict[str, Any], str]] = []
    for sample in _samples(shards):
        if f"{sample['__key__']}.txt" == CLASS_NAMES:
            names = class_names(sample["txt"])
            continue
        suffix = _image_suffix(sample)
        if suffix is None:
            continue
        path = folder / f"{len(paths):08d}.{suffix}"
        path.write_bytes(sample[suffix])
        paths.append(path)
        labels = {label: sample[label[1:]] for label in LABEL_SUFFIXES if label[1:] in sample}
        found.append((labels, f"{sample['__key__']}.{suffix}"))
    of_each = [sample_class(labels, names, member) for labels, member in found]
    classes = tuple(sorted(set(of_each)))
    index = {label: number for number, label in enumerate(classes)}
    captions = tuple(sample_caption(labels) for labels, _ in found)
    return ImageSet(name, digest, tuple(paths), tuple(index[label] for label in of_each), classes, captions)


def _samples(shards: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False)
    except (ValueError, tarfile.TarError) as error:  # e.g. two files of one name and type in a sample
        raise invalid(f"a shard cannot be read: {words(error)}") from error


def _image_suffix(sample: Mapping[str, object]) -> str | None:
    return next((suffix for suffix in sample if f".{suffix.lower()}" in IMAGE_SUFFIXES), None)

"""How sets of labelled images are laid out: which class an image belongs to, from names and labels alone.

- **Class folders**: `<class>/<image>`. Images may lie deeper: the first folder names the class. One folder around
  everything is looked through. Images without any folder are an unlabelled set, of the one class `unlabelled`.
- **WebDataset shards**: beside every image `<key>.jpg` lies its label: `<key>.cls` (a name, or a number that counts the
  lines of `classnames.txt` from 0), `<key>.json` (`{"label": ...}`) or `<key>.txt` (a name). Where the label is in one of
  the first two, `<key>.txt`, or the field `caption` of `<key>.json`, is a caption.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidRequest
from shared.schemas.base import Label

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Of WebDataset labels; the first one that is there counts."""
UNLABELLED = "unlabelled"
CLASS_NAMES = "classnames.txt"
MAX_CLASS_DIGITS = 9
MAX_CAPTION_CHARACTERS = 1000
"""More than any CLIP reads."""

_LABEL = TypeAdapter[str](Label)


def invalid(detail: str) -> InvalidRequest:
    """Return an error about a data set as a whole; whoever knows the field says so."""
    return InvalidRequest.at("", detail)


def is_image(name: PurePosixPath) -> bool:
    """True if the name is one of an image."""
    return name.suffix.lower() in IMAGE_SUFFIXES


def folder_classes(images: Sequence[PurePosixPath]) -> list[str]:
    """Return the class of each image of a set of class folders, from relative paths.

    Raises:
        InvalidRequest: there is no image, some lie beside the class folders, or a folder's name is no class name.
    """
    if not images:
        raise invalid(
            f"holds no image; give <class>/<image> with names that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if all(len(name.parts) == 1 for name in images):
        return [UNLABELLED] * len(images)
    wrapped = len({name.parts[0] for name in images}) == 1 and all(len(name.parts) > 2 for name in images)
    inner = [PurePosixPath(*name.parts[1:]) for name in images] if wrapped else images
    for name in inner:
        if len(name.parts) == 1:
            raise invalid(f"member {str(name)!r} lies beside the class folders; move it into the folder of its class")
    return [class_name(name.parts[0], str(name)) for name in inner]


def is_shard(images: Iterable[PurePosixPath], others: Iterable[PurePosixPath]) -> bool:
    """True if these are members of a WebDataset shard: some image has a label beside it."""
    keys = {sample_key(name) for name in others}
    return any(sample_key(name) in keys for name in images)


def shard_classes(images: Iterable[PurePosixPath], texts: Mapping[PurePosixPath, bytes]) -> list[str]:
    """Return the class of each image of a shard; `texts` are its labels by member name.

    Raises:
        InvalidRequest: an image has no label, or the label is none.
    """
    names = class_names(texts.get(PurePosixPath(CLASS_NAMES)))
    check_samples([*images, *texts])
    labels: dict[str, dict[str, bytes]] = {}
    for member, content in texts.items():
        labels.setdefault(sample_key(member), {})[member.suffix.lower()] = content
    return [sample_class(labels.get(sample_key(image), {}), names, str(image)) for image in images]


def check_samples(members: Iterable[PurePosixPath]) -> None:
    """Check that readers of shards, who go by the key and the lower-case rest of a name, see what we see.

    Raises:
        InvalidRequest: they would leave an image out, or take two members for one.
    """
    seen: set[str] = set()
    for member in members:
        if is_image(member) and member.name.count(".") > 1:
            raise invalid(f"member {str(member)!r} has more than one dot in its name, so that shards' readers miss it")
        place = sample_key(member) + member.name.removeprefix(member.name.split(".")[0]).lower()
        if place in seen:
            raise invalid(f"member {str(member)!r} comes twice in its sample; names may not differ in case alone")
        seen.add(place)


def class_names(content: bytes | None) -> list[str]:
    """Return the lines of a `classnames.txt`, none without one."""
    return content.decode("utf-8", "replace").splitlines() if content else []


def sample_class(label: Mapping[str, bytes], names: Sequence[str], member: str) -> str:
    """Return the class of one WebDataset sample; `label` maps `.cls`, `.json` and `.txt` to their content.

    Raises:
        InvalidRequest: there is no label, or it is none.
    """
    suffix = next((suffix for suffix in LABEL_SUFFIXES if suffix in label), None)
    if suffix is None:
        raise invalid(f"member {member!r} has no label beside it; add one that ends in .cls, .json or .txt")
    try:
        text = label[suffix].decode().strip()
        value = str(json.loads(text)["label"]) if suffix == ".json" else text
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise invalid(f"the label of member {member!r} cannot be read; .json needs a field label") from error
    if value.isdecimal() and names:
        if len(value) > MAX_CLASS_DIGITS or int(value) >= len(names):
            raise invalid(f"member {member!r} has class {value[:20]}, but {CLASS_NAMES} has {len(names)} lines")
        value = names[int(value)]
    return class_name(value, member)


def sample_caption(texts: Mapping[str, bytes]) -> str | None:
    """Return the caption of one WebDataset sample whose label was read, None without one; `texts` as for `sample_class`."""
    if ".txt" in texts and len(texts) > 1:
        caption: object = texts[".txt"].decode("utf-8", "replace")
    else:
        caption = json.loads(texts[".json"]).get("caption") if ".json" in texts else None
    words = " ".join(caption.split()) if isinstance(caption, str) else ""
    return words[:MAX_CAPTION_CHARACTERS] or None


def class_name(text: str, member: str) -> str:
    """Return `text` if it can be a class name.

    Raises:
        InvalidRequest: it is empty, too long or not printable.
    """
    try:
        return _LABEL.validate_python(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise invalid(f"member {member!r}: {text[:100]!r} cannot be a class name: {reason}") from error


def sample_key(member: PurePosixPath) -> str:
    """Return what WebDataset calls the key: the name up to the first dot of its last part."""
    return str(member.parent / member.name.split(".")[0])

"""How sets of labelled images are laid out: which class an image belongs to, from names and labels
alone.

- **Class folders**: `<class>/<image>`. Images may lie deeper: the first folder names the class.
  Folders around everything are looked through, and those that split a set (`train`, `val`, `test`
  and the like) are put together. Images without any folder are an unlabelled set, of the one class
  `unlabelled`.
- **Samples**, as in WebDataset shards. A member's key is its name up to the first dot of its last
  part, and what follows is its field: beside every image `<key>.jpg` lies its label: `<key>.cls` (a
  name, or a number that counts the lines of `classnames.txt` from 0), `<key>.json` (`{"label":
  ...}`) or `<key>.txt` (a name). Where the label is in one of the first two, `<key>.txt`, or the
  field `caption` of `<key>.json`, is a caption.

`shared/files/label_tables.py` reads labels from tables. What an image's class cannot be told by
is refused by its name, and the image is left out where whoever sends the set allows that."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar
from unicodedata import normalize

from pydantic import TypeAdapter, ValidationError

from shared.files.errors import invalid
from shared.files.image_kinds import IMAGE_SUFFIXES, is_image
from shared.schemas.base import Label

__all__ = ["IMAGE_SUFFIXES", "is_image"]
LABEL_FIELDS = (
    "cls",
    "cls.txt",
    "label",
    "label.txt",
    "class",
    "class.txt",
    "label.cls",
    "json",
    "txt",
)
"""Of a sample; the first one that is there counts."""
IMAGE_FIELDS = re.compile(r"(?:(?:image|img)\.)?[a-z]+")
"""Of a sample: `jpg`, or `image.jpg`; others, such as `seg.png`, are no image to learn from."""
UNLABELLED = "unlabelled"
CLASS_NAMES = "classnames.txt"
MAX_CLASS_DIGITS = 9
MAX_LABEL_BYTES = 65_536
"""Of one label."""
MAX_CAPTION_CHARACTERS = 1000
"""More than any CLIP reads."""
SPLITS = frozenset(
    {
        "train",
        "training",
        "trn",
        "val",
        "valid",
        "validation",
        "dev",
        "test",
        "testing",
        "tst",
        "eval",
        "evaluation",
        "holdout",
    }
)
FILLERS = frozenset({"set", "data", "dataset", "images", "imgs", "image", "split"})
"""What names of splits have beside the word."""
Refuse = Callable[[str, str], None]
"""Called with a member and what is wrong with it."""
_T = TypeVar("_T")
_LABEL = TypeAdapter[str](Label)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image of a set."""

    name: str
    """Of the member."""
    label: str
    """Its class."""
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Folders:
    """Images by their folders."""

    images: tuple[Labelled, ...]
    layout: str
    """`unlabelled`, `class_folders` or `split_folders`."""
    notes: tuple[str, ...]
    """What was looked through or put together."""


def folder_classes(places: Mapping[str, str], refuse: Refuse) -> Folders:
    """Return the classes of images from where they lie; `places` maps their names to relative
    paths.
    """
    paths = {name: tuple(place.split("/")) for name, place in places.items()}
    notes: list[str] = []
    split = False
    while True:
        firsts = {parts[0] for parts in paths.values()}
        if len(firsts) == 1 and all(len(parts) > 2 for parts in paths.values()):
            notes.append(f"the folder {min(firsts)!r} around everything was looked through")
        elif _are_splits(firsts, paths.values()):
            split = True
            notes.append(
                f"the folders {_listed(firsts)} are parts of one set and were put together"
            )
        else:
            break
        paths = {name: parts[1:] if len(parts) > 1 else parts for name, parts in paths.items()}
    if all(len(parts) == 1 for parts in paths.values()):
        return Folders(
            tuple(Labelled(name, UNLABELLED) for name in paths), UNLABELLED, tuple(notes)
        )
    found: list[Labelled] = []
    for name, parts in paths.items():
        if len(parts) == 1:
            refuse(name, "lies beside the class folders; move it into the folder of its class")
        elif (label := _class_name(parts[0], name, refuse)) is not None:
            found.append(Labelled(name, label))
    return Folders(tuple(found), "split_folders" if split else "class_folders", tuple(notes))


def _are_splits(firsts: set[str], paths: Iterable[tuple[str, ...]]) -> bool:
    """True if the first folders are parts of one set: each has a word for one in its name, and
    they differ in that alone.
    """
    rests = {name: _beside_split(name) for name in firsts}
    depths = {min(len(parts), 3) for parts in paths}
    if len(firsts) < 2 or None in rests.values() or len(set(rests.values())) > 1 or 1 in depths:
        return False
    return depths == {3} or set(rests.values()) == {()}


def _beside_split(name: str) -> tuple[str, ...] | None:
    """Return the words of a folder's name without the one for a part of a set; None if there is
    not just one such word.
    """
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z\d])", name)
    tokens = [word.casefold() for word in words if word and not word.isdecimal()]
    rest = [token for token in tokens if token not in SPLITS]
    return tuple(t for t in rest if t not in FILLERS) if len(rest) == len(tokens) - 1 else None


def sample_key(name: str) -> tuple[str, str]:
    """Return key and field of a member: its name up to the first dot of its last part, and the
    rest in lower case.
    """
    folder, _, last = name.rpartition("/")
    key, _, field = last.partition(".")
    return f"{folder}/{key}" if folder else key, field.lower()


@dataclass(frozen=True, slots=True)
class Samples:
    """Images with their labels beside them."""

    images: tuple[Labelled, ...]
    extra: tuple[str, ...]
    """Images that are fields beside the one to learn from."""
    used: frozenset[str]
    """Texts that belong to a sample with an image."""


def samples(
    images: Sequence[str], texts: Mapping[str, bytes], names: Sequence[str], refuse: Refuse
) -> Samples | None:
    """Return the images of a shard; None if these are members of none: no image has a label beside
    it.

    Args:
        images: their member names, in the order of the shard.
        texts: labels by member name.
        names: lines of `classnames.txt`.
        refuse: called for what has no label, or one that is none.

    Raises:
        InvalidRequest: two members have one place in a sample.
    """
    labels: dict[str, dict[str, bytes]] = {}
    texts_of: dict[str, list[str]] = {}
    for name, content in texts.items():
        key, field = sample_key(name)
        if field not in LABEL_FIELDS and (stem := _long_stem(name)) is not None:
            key, field = stem, field.rpartition(".")[2]
        _once(labels.setdefault(key, {}), field, content, name)
        texts_of.setdefault(key, []).append(name)
    groups: dict[str, dict[str, str]] = {}
    for name in images:
        key, field = sample_key(name)
        stem = _long_stem(name)
        if stem in labels:  # a.b.jpg beside a.b.txt: the dot is part of the name
            key, field = str(stem), field.rpartition(".")[2]
        _once(groups.setdefault(key, {}), field, name, name)
    if not groups.keys() & labels.keys():
        return None
    found: list[Labelled] = []
    extra: list[str] = []
    for key, fields in groups.items():
        chosen = _chosen(fields)
        extra += [name for name in fields.values() if name != chosen]
        if chosen is None:
            refuse(
                min(fields.values()),
                "has no image beside it whose name is its key and a suffix; rename one of them",
            )
        elif (one := _sample(chosen, labels.get(key, {}), names, refuse)) is not None:
            found.append(one)
    used = frozenset(name for key in groups for name in texts_of.get(key, ()))
    return Samples(tuple(found), tuple(extra), used)


def _long_stem(name: str) -> str | None:
    """Return the name up to its last dot, where that is not its first."""
    stem = name.rpartition(".")[0]
    return stem if "." in stem.rpartition("/")[2] else None


def _once(fields: dict[str, _T], field: str, value: _T, name: str) -> None:
    if field in fields:
        raise invalid(
            f"member {name!r} comes twice in its sample; names may not differ in case alone"
        )
    fields[field] = value


def _chosen(fields: Mapping[str, str]) -> str | None:
    plain = [name for field, name in fields.items() if "." not in field]
    named = [name for field, name in fields.items() if IMAGE_FIELDS.fullmatch(field)]
    return next(iter(plain or named), None)


def _sample(
    name: str, label: Mapping[str, bytes], names: Sequence[str], refuse: Refuse
) -> Labelled | None:
    try:
        return Labelled(name, sample_class(label, names), sample_caption(label))
    except ValueError as error:
        refuse(name, str(error))
        return None


def text_of(content: bytes) -> str:
    """Return a text, whatever mark of its encoding it begins with.

    Raises:
        ValueError: it is in no encoding of Unicode.
    """
    utf16 = len(content) > 2 and content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("cannot be read: it is no UTF-8") from error


def class_names(content: bytes | None) -> list[str]:
    """Return the lines of a `classnames.txt`, none without one."""
    return content.decode("utf-8-sig", "replace").splitlines() if content else []


def sample_class(label: Mapping[str, bytes], names: Sequence[str]) -> str:
    """Return the class of one sample; `label` maps fields to their content.

    Raises:
        ValueError: there is no label, or it is none.
    """
    field = next((field for field in LABEL_FIELDS if field in label), None)
    if field is None:
        raise ValueError("has no label beside it; add one that ends in .cls, .json or .txt")
    if len(label[field]) > MAX_LABEL_BYTES:
        raise ValueError(f"has a label of more than {MAX_LABEL_BYTES} bytes")
    try:
        text = text_of(label[field]).strip()
        value: object = json.loads(text)["label"] if field == "json" else text
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("has a label that cannot be read; .json needs a field label") from error
    return label_name(value, names)


def label_name(value: object, names: Sequence[str]) -> str:
    """Return the class that a label stands for: a name, or a whole number that counts `names` where
    there are any.

    Raises:
        ValueError: it is none; the message goes behind the name of the member.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        kinds = {
            "NoneType": "null",
            "bool": "true or false",
            "list": "a list",
            "dict": "an object",
            "float": "a fraction",
        }
        kind = kinds.get(type(value).__name__, type(value).__name__)
        raise ValueError(f"has a label that is {kind}; give one name or whole number")
    text = (
        str(value).strip()
        if abs(value if isinstance(value, int) else 0) < 10**MAX_CLASS_DIGITS
        else "9" * 20
    )
    if re.fullmatch(r"-\d+", text):
        raise ValueError(f"has the label {text[:20]}; numbers count classes from 0")
    if text.isdecimal() and names:
        if len(text) > MAX_CLASS_DIGITS or int(text) >= len(names):
            raise ValueError(f"has class {text[:20]}, but {CLASS_NAMES} has {len(names)} lines")
        text = names[int(text)]
    return checked_name(text)


def sample_caption(texts: Mapping[str, bytes]) -> str | None:
    """Return the caption of one sample whose label was read, None without one; `texts` as for
    `sample_class`.
    """
    label = next((field for field in LABEL_FIELDS if field in texts), None)
    if "txt" in texts and label != "txt":
        caption: object = texts["txt"].decode("utf-8-sig", "replace")
    else:
        caption = json.loads(text_of(texts["json"])).get("caption") if label == "json" else None
    return caption_of(caption)


def caption_of(value: object) -> str | None:
    """Return a caption in one line, None for what is none."""
    words = " ".join(value.split()) if isinstance(value, str) else ""
    return words[:MAX_CAPTION_CHARACTERS] or None


def checked_name(text: str) -> str:
    """Return `text` in normal form C if it can be a class name.

    Raises:
        ValueError: it is empty, too long or not printable; the message goes behind the name of the
            member.
    """
    try:
        return _LABEL.validate_python(normalize("NFC", text))
    except ValidationError as error:
        raise ValueError(
            f"{text[:100]!r} cannot be a class name: {error.errors()[0]['msg']}"
        ) from error


def _class_name(text: str, member: str, refuse: Refuse) -> str | None:
    try:
        return checked_name(text)
    except ValueError as error:
        refuse(member, str(error))
        return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def by_path(name: str) -> PurePosixPath:
    """Return a name as it is sorted: folder by folder."""
    return PurePosixPath(name)

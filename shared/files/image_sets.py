"""The one reader of sets of images: of archives, of folders on disk, of shards and of Parquet
files.

Gateway and worker read by it, so that what was counted when a set came in is what a job learns
from and measures. It hands each image to whoever asked, who decodes it or writes it down, and
returns what it understood. What no image can be told by is refused by name, all of it at once;
where the sender allows it, it is left out and counted instead."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from shared.errors import FieldError, InvalidRequest
from shared.files.archive_members import Budget, MemberLimits, is_zip, members
from shared.files.dataset_layouts import (
    CLASS_NAMES,
    MAX_LABEL_BYTES,
    Labelled,
    class_names,
    label_name,
    sample_key,
)
from shared.files.dataset_warnings import warnings_of
from shared.files.errors import invalid, shown
from shared.files.image_kinds import IMAGE_SUFFIXES, SUFFIXES_OF_OTHERS, TAKEN, is_image
from shared.files.label_tables import MAX_TABLE_BYTES, is_table
from shared.files.parquet import is_parquet, parquet_images
from shared.files.understanding import Read, understood
from shared.settings import MIB

ArchiveFormat = Literal["zip", "tar", "webdataset", "parquet"]

MAX_TEXT_BYTES = 128 * MIB
"""Of all labels and tables together."""
MAX_NAMES_BYTES = 8 * MIB
"""Of a `classnames.txt`."""
MAX_CLASSES = 50_000
MAX_NAMED = 20
"""Members that an error names."""
MAX_KINDS = 30
"""Of what was left out, that are told apart."""
MAX_KIND_CHARACTERS = 24
MAX_PARTS = 10_000
"""Shards, or Parquet files, of one set."""

LABEL_SUFFIXES = frozenset({".cls", ".json", ".txt", ".label", ".class"})
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIX = ".parquet"
JUNK_NAMES = {
    name.casefold(): name
    for name in ("Thumbs.db", "ehthumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "$RECYCLE.BIN")
}
"""What file managers leave behind."""
NOTES = frozenset(
    {
        ".md",
        ".rst",
        ".txt",
        ".json",
        ".jsonl",
        ".xml",
        ".csv",
        ".tsv",
        ".yaml",
        ".yml",
        ".log",
        ".pdf",
        ".url",
    }
)
NOTE_NAMES = frozenset(
    {"license", "licence", "readme", "notice", "authors", "citation", "checksums", "sha256sums"}
)
"""What lies beside images to be read by people, or by other tools: it is left out, and counted."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image: its bytes, or where it lies on disk."""

    name: str
    content: bytes | None
    path: Path | None = None


Take = Callable[[Found], None]
"""Called with every image in turn; raises InvalidRequest where it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What was understood of a set."""

    layout: str
    """`class_folders`, `split_folders`, `unlabelled`, `webdataset`, `label_table` or `parquet`."""
    images: tuple[Labelled, ...]
    """Those with a class: of a shard in its order, else folder by folder."""
    left_out: dict[str, int]
    """Kind of member -> how many were left out because they are no images of the set."""
    skipped: int
    """How many members cannot be used and were left out because the sender allows it."""
    warnings: tuple[str, ...]

    @property
    def classes(self) -> dict[str, int]:
        """Class name -> number of images, sorted by name."""
        return dict(sorted(Counter(image.label for image in self.images).items()))


def read_images(
    path: Path, limits: MemberLimits, images: int, take: Take, *, skip_invalid: bool = False
) -> Contents:
    """Read a set once.

    Args:
        path: an archive (a zip or tar of images or of shards), a Parquet file, or a folder of what
            would be packed.
        limits: what it may hold.
        images: how many there may be.
        take: called with every image.
        skip_invalid: leave out what cannot be used, instead of refusing the set for it.

    Raises:
        InvalidRequest: it is no set of images, or breaks a rule; the details name up to 20 members.
    """
    with tempfile.TemporaryDirectory(prefix="efface-read-") as scratch:
        reader = _Reader(limits, images, take, Path(scratch))
        if path.is_dir():
            reader.read_folder(path)
        elif is_parquet(path):
            reader.add_parquet(path.name, path)
        else:
            reader.read_archive(path)
        return reader.contents(skip_invalid=skip_invalid)


def set_format(path: Path, layout: str) -> ArchiveFormat:
    """Return the format of a file whose layout was understood."""
    if is_parquet(path):
        return "parquet"
    if is_zip(path):
        return "zip"
    return "webdataset" if layout == "webdataset" else "tar"


class _File(Protocol):
    """A file of a set, in an archive or on disk."""

    @property
    def name(self) -> PurePosixPath: ...
    @property
    def size(self) -> int: ...
    def read(self) -> bytes: ...
    def copy(self, target: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """A file on disk."""

    name: PurePosixPath
    path: Path

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """Return the content."""
        return self.path.read_bytes()

    def copy(self, target: Path) -> None:
        """Link it: it is there already."""
        target.symlink_to(self.path.resolve())


@dataclass(slots=True)
class _Refusals:
    """Members that cannot be used."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    members: set[str] = field(default_factory=set)

    def add(self, name: str, why: str) -> None:
        """Note one, once."""
        if name in self.members:
            return
        self.members.add(name)
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(f"member {shown(name)} {why}")

    def error(self) -> InvalidRequest:
        """Return them as one error, each with its name up to the limit."""
        rest = self.count - len(self.named)
        more = f"; so are {rest} more members" if rest else ""
        hint = f"{more}; mend or remove what is wrong, or leave it out with skip_invalid=true"
        return InvalidRequest(
            [FieldError("", why) for why in (*self.named[:-1], self.named[-1] + hint)]
        )


class _Reader:
    def __init__(self, limits: MemberLimits, most_images: int, take: Take, scratch: Path) -> None:
        self._limits, self._most_images, self._take, self._scratch = (
            limits,
            most_images,
            take,
            scratch,
        )
        self._images: list[str] = []
        self._texts: dict[str, bytes] = {}
        self._tables: dict[str, bytes] = {}
        self._text_bytes = 0
        self._others: list[str] = []
        self._parquets: list[tuple[str, Path]] = []
        self._shards: list[str] = []
        self._left_out: Counter[str] = Counter()
        self._refused = _Refusals()
        self._guessed = 0
        self._budget: Budget | None = None

    def read_archive(self, path: Path) -> None:
        """Take every member of an archive."""
        self._budget = Budget.of(path, self._limits)
        for member in members(path, self._limits, budget=self._budget):
            self._guessed += member.guessed
            self._add(member)

    def read_folder(self, folder: Path) -> None:
        """Take every file below a folder, links followed; hidden ones and what they hold count
        as one.
        """
        files = [
            PurePosixPath(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
        ]
        self._budget = Budget(self._limits, self._limits.expanded_bytes)
        for name in sorted(files):
            self._add(_OnDisk(name, folder / name))

    def add_parquet(self, name: str, path: Path) -> None:
        """Keep a Parquet file for the end: beside images it is none of the set."""
        self._parquets.append((name, path))
        self._check_parts(self._parquets)

    def contents(self, *, skip_invalid: bool) -> Contents:
        """Tell the classes from what was read."""
        layout, found, notes = self._understood()
        usable = tuple(image for image in found if image.name not in self._refused.members)
        if self._refused.count and (not skip_invalid or not usable):
            raise self._refused.error()
        if not usable:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise invalid(f"holds no image; give <class>/<image> with names that end in {suffixes}")
        classes = Counter(image.label for image in usable)
        if len(classes) > MAX_CLASSES:
            raise invalid(f"holds {len(classes)} classes; the limit is {MAX_CLASSES}")
        left_out = _limited(self._left_out)
        return Contents(
            layout=layout,
            images=usable,
            left_out=left_out,
            skipped=self._refused.count,
            warnings=warnings_of(
                layout, classes, left_out, self._refused.count, [*notes, *self._notes()]
            ),
        )

    def _understood(self) -> tuple[str, Sequence[Labelled], Sequence[str]]:
        """Return layout, images with their classes, and what is to be said of them."""
        if self._parquets and not self._images:
            self._leave_out([*self._texts, *self._tables, *self._refuse_others()])
            return "parquet", self._from_parquet(), ()
        self._leave_out(name for name, _ in self._parquets)
        self._parquets.clear()
        read = Read(self._images, self._texts, self._tables, self._shards)
        told = understood(read, self._refused.add)
        self._leave_out(
            [
                *told.unused,
                *(self._others if told.layout == "webdataset" else self._refuse_others()),
            ]
        )
        return told.layout, told.images, told.notes

    def _from_parquet(self) -> list[Labelled]:
        """Hand over every row of the Parquet files."""
        names = class_names(self._texts.get(CLASS_NAMES))
        found: list[Labelled] = []
        for name, path in sorted(self._parquets):
            budget = self._budget or Budget.of(path, self._limits)
            for number, row in enumerate(parquet_images(path, name, budget)):
                row_name = f"{_without_suffix(name)}/{number:08d}"
                if len(found) >= self._most_images:
                    raise self._too_many_images()
                self._taken(Found(row_name, row.content))
                try:
                    found.append(
                        Labelled(
                            row_name, label_name(row.label, () if row.named else names), row.caption
                        )
                    )
                except ValueError as error:
                    self._refused.add(row_name, str(error))
        return found

    def _refuse_others(self) -> list[str]:
        """Refuse what is neither an image nor a note beside images; return the notes."""
        notes = []
        for name in self._others:
            path = PurePosixPath(name)
            suffix = path.suffix.lower()
            if suffix in NOTES or path.stem.lower() in NOTE_NAMES:
                notes.append(name)
            elif suffix in SUFFIXES_OF_OTHERS:
                self._refused.add(
                    name, f"is not an image; take it out, or convert it: taken are {TAKEN}"
                )
            else:
                self._refused.add(
                    name, "is not an image; take it out, or name it by its format, e.g. a.png"
                )
        return notes

    def _leave_out(self, names: Iterable[str]) -> None:
        self._left_out.update(_kind(name) for name in names)

    def _notes(self) -> list[str]:
        notes = []
        if self._shards:
            notes.append(f"{len(self._shards)} shards were put together")
        if self._guessed:
            notes.append(
                f"{self._guessed} names are in an encoding that the archive does not tell, and "
                "were read as CP437; look at "
                "the names of the classes, and pack again with UTF-8 if they are wrong"
            )
        return notes

    def _add(self, member: _File, shard: str = "") -> None:
        name = f"{shard}{member.name}"
        suffix = member.name.suffix.lower()
        if (kind := _junk(member.name)) is not None:
            self._left_out[kind] += 1
        elif is_image(member.name):
            self._add_image(name, member)
        elif name.lower().endswith(SHARD_SUFFIXES) and not shard:
            self._add_shard(name, member)
        elif suffix == PARQUET_SUFFIX:
            copy = self._scratch / f"{len(self._parquets)}{PARQUET_SUFFIX}"
            if self._images:
                self._others.append(name)
            else:
                member.copy(copy)
                self.add_parquet(name, copy)
        elif member.name.name == CLASS_NAMES and member.size <= MAX_NAMES_BYTES:
            self._texts[name] = self._text(member)
        elif suffix in LABEL_SUFFIXES:
            large = member.size > MAX_LABEL_BYTES
            self._texts[name] = _TOO_LARGE if large else self._text(member)
        elif is_table(member.name) and member.size <= MAX_TABLE_BYTES:
            self._tables[name] = self._text(member)
        else:
            self._others.append(name)

    def _add_image(self, name: str, member: _File) -> None:
        if len(self._images) >= self._most_images:
            raise self._too_many_images()
        self._images.append(name)
        path = member.path if isinstance(member, _OnDisk) else None
        self._taken(Found(name, None if path else member.read(), path))

    def _too_many_images(self) -> InvalidRequest:
        return invalid(
            f"holds more than {self._most_images} images; split it into smaller archives"
        )

    def _taken(self, found: Found) -> None:
        try:
            self._take(found)
        except InvalidRequest as error:
            self._refused.add(
                found.name, error.errors[0].detail.removeprefix(f"member {shown(found.name)} ")
            )

    def _add_shard(self, name: str, member: _File) -> None:
        copy = self._scratch / "shard"
        member.copy(copy)
        if is_zip(copy):
            raise invalid(
                f"member {shown(name)} is a zip under the name of a shard; pack it as a tar"
            )
        self._shards.append(
            name[: -len(next(s for s in SHARD_SUFFIXES if name.lower().endswith(s)))]
        )
        self._check_parts(self._shards)
        for inner in members(copy, self._limits, label=name, budget=self._budget):
            self._add(inner, f"{self._shards[-1]}/")
        copy.unlink()

    def _check_parts(self, parts: Sequence[object]) -> None:
        if len(parts) > MAX_PARTS:
            raise invalid(
                f"holds more than {MAX_PARTS} shards or Parquet files; put some of them together"
            )

    def _text(self, member: _File) -> bytes:
        self._text_bytes += member.size
        if self._text_bytes > MAX_TEXT_BYTES:
            raise invalid(
                f"holds more than {MAX_TEXT_BYTES} bytes of labels and captions; split it, or "
                "shorten them"
            )
        return member.read()


_TOO_LARGE = bytes(MAX_LABEL_BYTES + 1)
"""Stands for a label that is too large to be read."""


def _junk(name: PurePosixPath) -> str | None:
    """Return the kind of what file managers leave behind; None for what is meant."""
    for part in name.parts:
        if (junk := JUNK_NAMES.get(part.casefold())) is not None:
            return junk
        if part == ".DS_Store":
            return part
        if part.startswith("."):
            return "hidden"
    return None


def _kind(name: str) -> str:
    """Return what a member that was left out is counted as: all that follows the first dot of
    its name.
    """
    suffix = sample_key(name)[1]
    plain = suffix.isascii() and suffix.isprintable() and 0 < len(suffix) <= MAX_KIND_CHARACTERS
    return f".{suffix}" if plain else "other"


def _limited(kinds: Counter[str]) -> dict[str, int]:
    """Return the commonest kinds, the rest as `other`."""
    known = dict(kinds.most_common(MAX_KINDS))
    rest = kinds.total() - sum(known.values())
    if rest:
        known["other"] = known.get("other", 0) + rest
    return dict(sorted(known.items()))


def _without_suffix(name: str) -> str:
    return name[: -len(PARQUET_SUFFIX)] if name.lower().endswith(PARQUET_SUFFIX) else name

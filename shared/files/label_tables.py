"""Labels in tables beside images: Kaggle's `train.csv` (`id,label`), Hugging Face's `metadata.csv`
and `metadata.jsonl`.

A table is read where it says which column names images and which names classes: the first is the
one whose values are names of images here (with folder, without, or without suffix), the second
has a name that means class, or is the only other one."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from shared.files.dataset_layouts import SPLITS, Labelled, Refuse, caption_of, label_name, text_of
from shared.files.errors import invalid

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl"})
MAX_TABLE_BYTES = 64 * 1024 * 1024
MAX_COLUMNS = 1_000
SAMPLE_ROWS = 50
"""What tells which column names images."""

FILE_COLUMNS = (
    "file_name",
    "filename",
    "file",
    "image",
    "image_id",
    "id",
    "path",
    "filepath",
    "img",
    "image_path",
    "name",
)
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "category",
    "target",
    "species",
    "breed",
    "y",
)
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
NO_LABELS = "submission"
"""In the name of a table that holds answers to be filled in (Kaggle)."""

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that names images here."""

    name: str
    rows: tuple[tuple[str, object, str | None], ...]
    """(name of the image, label, caption); label None where the table has no column of classes."""
    labelled: bool
    unknown: int
    """Rows that name no image here."""


def is_table(name: PurePosixPath) -> bool:
    """True if the name is one of a table."""
    return name.suffix.lower() in TABLE_SUFFIXES


def read_table(name: str, content: bytes, images: Sequence[str]) -> Table | None:
    """Return what a table says of images; None if it names none of them.

    Raises:
        InvalidRequest: it names images, but cannot be understood; the detail names the table, and
            says what to do.
    """
    if NO_LABELS in name.casefold():
        return None
    try:
        columns, rows = _rows(name, text_of(content))
    except (ValueError, csv.Error, RecursionError) as error:
        raise invalid(
            f"member {name!r} cannot be read as a table of labels: {str(error)[:100]}"
        ) from error
    places = _Places(name, images)
    column = _file_column(columns, rows, places)
    if column is None:
        return None
    label = _label_column(name, [c for c in columns if c != column])
    caption = next(
        (
            c
            for c in columns
            if c.strip().casefold() in CAPTION_COLUMNS and c not in (column, label)
        ),
        None,
    )
    found: dict[str, tuple[str, object, str | None]] = {}
    unknown = 0
    for row in rows:
        place = places.of(row.get(column))
        if place is None:
            unknown += 1
            continue
        entry = (
            place,
            row.get(label) if label else None,
            caption_of(row.get(caption)) if caption else None,
        )
        if found.setdefault(place, entry)[1] != entry[1]:
            raise invalid(f"member {name!r} gives {place!r} two classes; take one of the rows out")
    return Table(name, tuple(found.values()), label is not None, unknown)


def table_classes(
    tables: Sequence[Table], images: Sequence[str], names: Sequence[str], refuse: Refuse
) -> list[Labelled]:
    """Return the images that tables give a class, in their order.

    Args:
        tables: those with labels.
        images: all images.
        names: lines of `classnames.txt`.
        refuse: called for an image that no row names, or whose label is none.

    Raises:
        InvalidRequest: two tables give one image different classes.
    """
    rows: dict[str, tuple[str, object, str | None]] = {}
    for table in tables:
        for row in table.rows:
            if rows.setdefault(row[0], row)[1] != row[1]:
                raise invalid(
                    f"member {row[0]!r} has one class in {table.name!r}, and another in "
                    "another "
                    "table"
                )
    listed = " and ".join(repr(table.name) for table in tables[:3])
    found: list[Labelled] = []
    for image in images:
        if image not in rows:
            refuse(image, f"has no label in {listed}; add a row, or take the image out")
            continue
        try:
            found.append(Labelled(image, label_name(rows[image][1], names), rows[image][2]))
        except ValueError as error:
            refuse(image, f"{error} (in {listed})")
    return found


def _rows(name: str, text: str) -> tuple[list[str], list[Row]]:
    """Return the names of the columns, and the rows."""
    if name.casefold().endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("each line must be an object")
        return list(dict.fromkeys(column for row in rows[:SAMPLE_ROWS] for column in row)), rows
    lines = list(
        csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(name, text), strict=False)
    )
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines:
        return [], []
    if len(lines[0]) > MAX_COLUMNS:
        raise ValueError(f"it has {len(lines[0])} columns")
    header, body = [cell.strip() for cell in lines[0]], lines[1:]
    if not {cell.casefold() for cell in header} & {*FILE_COLUMNS, *LABEL_COLUMNS} and any(
        "." in cell for cell in header
    ):
        header, body = (
            [f"column {number}" for number in range(1, len(header) + 1)],
            lines,
        )  # no names: the first row counts
    if len(set(header)) < len(header):
        raise ValueError("two columns have one name")
    return header, [
        dict(zip(header, (cell.strip() for cell in line), strict=False)) for line in body
    ]


def _delimiter(name: str, text: str) -> str:
    first = text.lstrip().partition("\n")[0]
    return max(
        "\t",
        ",",
        ";",
        key=lambda mark: (first.count(mark), mark == ("\t" if name.endswith(".tsv") else ",")),
    )


class _Places:
    """Finds the image that a cell of a table means."""

    def __init__(self, table: str, images: Iterable[str]) -> None:
        self._folder = table.rpartition("/")[0]
        stem = PurePosixPath(table).stem.casefold()
        self._split = next((word for word in sorted(SPLITS) if word in stem), None)
        self._images = set(images)
        self._short: dict[str, list[str]] = {}
        for image in self._images:
            last = image.rpartition("/")[2]
            for short in {last, last.rpartition(".")[0]}:
                self._short.setdefault(short, []).append(image)

    def of(self, cell: object) -> str | None:
        """Return the image, None where there is none, or more than one."""
        if isinstance(cell, bool) or not isinstance(cell, str | int) or cell == "":
            return None
        text = str(cell).replace("\\", "/").removeprefix("./")
        for exact in (f"{self._folder}/{text}" if self._folder else text, text):
            if exact in self._images:
                return exact
        found = self._short.get(text.rpartition("/")[2], [])
        if "/" in text:
            found = [
                image
                for image in found
                if image.endswith(f"/{text}") or image.rpartition(".")[0].endswith(f"/{text}")
            ]
        if len(found) > 1 and self._split is not None:
            found = [image for image in found if self._split in image.casefold().split("/")[:-1]]
        return found[0] if len(found) == 1 else None


def _file_column(columns: Sequence[str], rows: Sequence[Row], places: _Places) -> str | None:
    """Return the column whose values name images; of several, the one with a name that says so."""

    def hits(column: str) -> int:
        return sum(places.of(row.get(column)) is not None for row in _spread(rows))

    counts = {column: hits(column) for column in columns}
    most = max(counts.values(), default=0)
    if most == 0:
        return None
    best = [column for column in columns if counts[column] == most]
    return min(best, key=lambda column: _rank(FILE_COLUMNS, column))


def _spread(rows: Sequence[Row]) -> Iterator[Row]:
    yield from rows[:: max(1, len(rows) // SAMPLE_ROWS)]


def _rank(known: Sequence[str], column: str) -> int:
    name = column.strip().casefold().replace(" ", "_")
    return known.index(name) if name in known else len(known)


def _label_column(table: str, others: Sequence[str]) -> str | None:
    """Return the column of classes; None where the table has captions alone."""
    known = [column for column in others if _rank(LABEL_COLUMNS, column) < len(LABEL_COLUMNS)]
    if known:
        return min(known, key=lambda column: _rank(LABEL_COLUMNS, column))
    rest = [column for column in others if column.strip().casefold() not in CAPTION_COLUMNS]
    if len(rest) > 1:
        listed = ", ".join(repr(column[:30]) for column in rest[:5])
        raise invalid(
            f"member {table!r} names images, but which of its columns ({listed}) is the class is "
            "not clear; "
            "call it label, or take the table out and put each image into a folder with the name "
            "of its class"
        )
    return rest[0] if rest else None

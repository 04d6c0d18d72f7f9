"""Images in Parquet files, as Hugging Face's data sets have them: a column of images (bytes, and a
path) and one of labels.

The names of classes stand in the file's own metadata (`ClassLabel`). Rows are read a few at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.files.archive_members import Budget, explained
from shared.files.dataset_layouts import UNLABELLED, caption_of
from shared.files.errors import invalid, shown
from shared.files.label_tables import CAPTION_COLUMNS, LABEL_COLUMNS

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAGIC = b"PAR1"
MAX_STRING_BYTES = 16 * 1024 * 1024
"""Of one text in the file's metadata."""
MAX_ITEMS = 1_000_000
"""Of one list in the file's metadata."""
ROWS_AT_A_TIME = 16
IMAGE_COLUMNS = ("image", "img", "picture", "photo", "pixel_values", "jpg", "png")


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """One row."""

    content: bytes
    label: object
    """The name of a class; a number where the file names none."""
    caption: str | None
    named: bool
    """True if the file itself names the classes."""


def is_parquet(path: Path) -> bool:
    """True if the file begins and ends as Parquet files do."""
    with path.open("rb") as file:
        begins = file.read(4) == MAGIC
        if not begins or file.seek(0, 2) < 12:
            return False
        file.seek(-4, 2)
        return file.read() == MAGIC


def parquet_images(path: Path, name: str, budget: Budget) -> Iterator[ParquetImage]:
    """Yield the rows of a file; `name` is for messages.

    Raises:
        InvalidRequest: it is damaged, has no column of images, or more rows or bytes than the
            limits allow.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise invalid(
            f"member {shown(name)} is a Parquet file, and this server cannot read these (it lacks "
            "pyarrow); "
            "give the images in folders with the names of their classes"
        ) from error
    limits = {
        "thrift_string_size_limit": MAX_STRING_BYTES,
        "thrift_container_size_limit": MAX_ITEMS,
    }
    try:
        with explained(shown(name), "a Parquet file"), parquet.ParquetFile(path, **limits) as file:
            yield from _rows(file, name, budget)
    except ArrowException as error:  # those that are no errors of Python's, too
        raise invalid(f"{shown(name)} cannot be read as a Parquet file: it is damaged") from error


def _rows(file: "ParquetFile", name: str, budget: Budget) -> Iterator[ParquetImage]:
    for group in range(file.metadata.num_row_groups):
        budget.take(name, file.metadata.row_group(group).total_byte_size, folder=False)
    schema = file.schema_arrow
    features = _features(schema.metadata or {})
    image = _image_column(schema, features)
    if image is None:
        raise invalid(
            f"member {shown(name)} has no column of images (of bytes, as Hugging Face's data sets "
            "have); "
            "give the images in folders with the names of their classes"
        )
    label = _label_column(schema.names, features, name)
    caption = next((c for c in CAPTION_COLUMNS if c in schema.names), None)
    classes = _class_names(features, label)
    columns = [column for column in (image, label, caption) if column is not None]
    for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns, use_threads=False):
        for row in batch.to_pylist():
            content = row[image].get("bytes") if isinstance(row[image], dict) else row[image]
            value = row[label] if label is not None else UNLABELLED
            if classes is not None and isinstance(value, int) and not isinstance(value, bool):
                value = classes[value] if 0 <= value < len(classes) else value
            yield ParquetImage(
                content or b"",
                value,
                caption_of(row[caption]) if caption else None,
                classes is not None,
            )


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return what Hugging Face's library wrote of the columns."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return (
        {name: value for name, value in found.items() if isinstance(value, dict)}
        if isinstance(found, dict)
        else {}
    )


def _image_column(schema: Any, features: dict[str, Any]) -> str | None:  # noqa: ANN401 - pyarrow's
    """Return the column of images: one that says so, else one of bytes with a name that says so,
    else the only one of bytes.
    """
    from pyarrow import types

    def of_bytes(kind: Any) -> bool:  # noqa: ANN401
        if types.is_struct(kind):
            return any(
                kind.field(i).name == "bytes" and of_bytes(kind.field(i).type)
                for i in range(kind.num_fields)
            )
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    able = [field.name for field in schema if of_bytes(field.type)]
    said = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    named = [name for name in able if name in IMAGE_COLUMNS]
    return next(iter(said or named), able[0] if len(able) == 1 else None)


def _label_column(columns: list[str], features: dict[str, Any], name: str) -> str | None:
    known = next((column for column in LABEL_COLUMNS if column in columns), None)
    found = [
        column
        for column, feature in features.items()
        if feature.get("_type") == "ClassLabel" and column in columns
    ]
    if known is not None or len(found) < 2:
        return known or next(iter(found), None)
    listed = ", ".join(shown(column) for column in found[:5])
    raise invalid(
        f"member {shown(name)} has several columns of classes ({listed}); call the one that "
        "counts "
        "label"
    )


def _class_names(features: dict[str, Any], label: str | None) -> list[str] | None:
    names = features.get(label or "", {}).get("names")
    return (
        names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
    )

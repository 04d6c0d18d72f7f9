"""Files and bodies that somebody might send to break in, to break down or to fill up: made by code, never stored."""

from collections.abc import Callable
from dataclasses import dataclass

LIMITS = {
    "max_archive_images": 40,
    "max_archive_expanded_bytes": 4_000_000,
    "max_image_pixels": 1_000_000,
    "max_upload_bytes": 3_000_000,
    "max_body_bytes": 100_000,
}
"""Settings with which small files are as hostile as large ones are without them."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """What is sent, and how it must be answered."""

    build: Callable[[], bytes]
    says: str
    """A part of the sentence that says what is wrong."""
    field: str = "/file"
    status: int = 422
    filename: str = "upload"
    fields: tuple[tuple[str, str], ...] = ()
    """Query parameters besides the name."""
    content_type: str = "application/octet-stream"

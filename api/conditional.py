"""Conditional and partial answers (RFC 9110): entity tags and byte ranges."""

import re
from dataclasses import dataclass

HEAD = "efface.head"
"""In the scope of a request that asks for the headers of an answer alone. Its method is GET
everywhere behind `Boundary`.
"""


def entity_tag(version: object) -> str:
    """Return a strong entity tag."""
    return f'"{version}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """True if the client has this version already. The comparison is weak, as the standard wants
    it for GET.
    """
    given = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return "*" in given or tag in given


class Unsatisfiable(ValueError):
    """The range begins behind the end of the file."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to and without `end`."""

    start: int
    end: int

    def content_range(self, size: int) -> str:
        """Return the value of Content-Range."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def byte_range(header: str | None, size: int) -> ByteRange | None:
    """Return the one range that is asked for, or None where the whole file is to be sent.

    What is no range, and a list of several, is ignored, as the standard allows.

    Raises:
        Unsatisfiable: there is no such byte.
    """
    found = re.fullmatch(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", (header or "").strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        if int(suffix) == 0 or size == 0:
            raise Unsatisfiable
        return ByteRange(max(0, size - int(suffix)), size)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, end)

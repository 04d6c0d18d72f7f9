"""Errors about files, in words that are safe to show."""

import re

from shared.errors import InvalidRequest


def invalid(detail: str) -> InvalidRequest:
    """Return an error about a data set as a whole; whoever knows the field says so."""
    return InvalidRequest.at("", detail)


SHOWN_CHARACTERS = 100
SHOWN_WORDS = 400


def shown(name: object) -> str:
    """Return a name for an error: quoted, escaped and not too long."""
    text = str(name)
    return ascii(text) if len(text) <= SHOWN_CHARACTERS else ascii(text[:SHOWN_CHARACTERS]) + "..."


_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
"""How Python shows an object that has no words of its own."""


def words(error: Exception) -> str:
    """Return what an error says, in one line of plain characters, without Python's names of its
    objects.
    """
    text = " ".join(_OBJECT.sub("it", str(error)).split()) or type(error).__name__
    return ascii(text[:SHOWN_WORDS])[1:-1]

"""What a reference in a request may be where it is no id: a model on a hub or in a folder, a data
set at a path.

Which of them are allowed is for the door to say. Needs no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InvalidRequest
from shared.files.image_archives import ArchiveLimits
from shared.request_rules.classes import class_counts
from shared.schemas.model_reference import ModelReference
from shared.schemas.spec import DataSource, ModelSource

LOCAL_DIR = "local-dir:"
HUB_KINDS = ("hf-hub:", "open_clip:")
_HUB_NAME = re.compile(r"hf-hub:[\w.-]+/[\w.-]+(@[\w./-]+)?|open_clip:[\w.-]+/[\w.-]+", re.ASCII)
"""A repository, or an architecture and a tag; neither may be a path."""
NO_PATH = "is no path that can be looked up"


@dataclass(frozen=True, slots=True)
class FoundData:
    """A data set, and how many images of each class it holds; None where that is not known here."""

    source: DataSource
    counts: Mapping[str, int] | None


def source_of(reference: ModelReference, pointer: str) -> tuple[str, str]:
    """Return an unregistered model as a `ModelSource.reference`, not yet checked, and the
    pointer of the field that names it.
    """
    if reference.source is None:
        return f"open_clip:{reference.architecture}/{reference.pretrained}", pointer
    return reference.source, f"{pointer}/source"


def hub_model(text: str, pointer: str) -> ModelSource:
    """Return the model of a hub.

    Raises:
        InvalidRequest: it cannot be the name of one.
    """
    if not text.startswith(HUB_KINDS):
        raise InvalidRequest.at(pointer, "must begin with local-dir: or hf-hub:")
    if not _HUB_NAME.fullmatch(text):
        raise InvalidRequest.at(
            pointer, "is no name that a hub knows; write hf-hub:owner/name, or a tag of open_clip"
        )
    return ModelSource(reference=text)


def model_in(path: Path, pointer: str) -> ModelSource:
    """Return the model in a folder.

    Raises:
        InvalidRequest: it is no folder.
    """
    if not path.is_dir():
        raise InvalidRequest.at(
            pointer, f"{path} is not a folder; give one in open_clip's local-dir layout"
        )
    return ModelSource(reference=f"{LOCAL_DIR}{path}")


class LocalData:
    """Data sets at paths; each is read once, however often a request names it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._counts: dict[Path, dict[str, int] | InvalidRequest] = {}

    def at(self, path: Path, pointer: str, name: str) -> FoundData:
        """Return the data set at a path.

        Raises:
            InvalidRequest: it holds no images that can be read, or breaks a rule.
        """
        if path not in self._counts:
            self._counts[path] = self._read(path)
        counts = self._counts[path]
        if isinstance(counts, InvalidRequest):
            raise counts.under(pointer)
        return FoundData(DataSource(name=name, uri=str(path)), counts)

    def _read(self, path: Path) -> dict[str, int] | InvalidRequest:
        try:
            return class_counts(path, self._limits)
        except InvalidRequest as error:
            return error
        except OSError as error:
            return InvalidRequest.at("", f"cannot be read: {error.strerror or error}")


def looked_up(text: str, pointer: str, *, home: bool = False) -> Path:
    """Return a path that a request gives, absolute, links followed; with `home`, `~` is the user's
    folder.

    Raises:
        InvalidRequest: the file system cannot look for it.
    """
    try:
        return (Path(text).expanduser() if home else Path(text)).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown user, or NUL
        raise InvalidRequest.at(pointer, NO_PATH) from error


def existing(path: Path, text: str, pointer: str) -> Path:
    """Return a path that a request gives as `text`, if something is there.

    Raises:
        InvalidRequest: nothing is.
    """
    try:
        there = path.exists()
    except OSError as error:  # too long for the file system
        raise InvalidRequest.at(pointer, NO_PATH) from error
    if not there:
        raise InvalidRequest.at(
            pointer, f"there is nothing at {text!r}; give the path of an archive or of a folder"
        )
    return path

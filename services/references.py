"""What a request may refer to besides registered things: local paths and model hubs, where the operator allows them."""

import re
from pathlib import Path

from shared.errors import InvalidRequest
from shared.schemas.model_reference import ModelReference
from shared.settings import Settings
from shared.storage import local_folder

HUB_KINDS = ("hf-hub:", "open_clip:")
_HUB_NAME = re.compile(r"hf-hub:[\w.-]+/[\w.-]+(@[\w./-]+)?|open_clip:[\w.-]+/[\w.-]+", re.ASCII)
"""A repository, or an architecture and a tag; neither may be a path."""


def model_reference(reference: ModelReference, settings: Settings, pointer: str) -> str:
    """Return an unregistered model as a `ModelSource.reference`.

    Raises:
        InvalidRequest: the operator does not allow it, or it is not one of the known kinds.
    """
    if reference.source is None:
        text = f"open_clip:{reference.architecture}/{reference.pretrained}"
    else:
        text, pointer = reference.source, f"{pointer}/source"
    if text.startswith("local-dir:"):
        path = allowed_path(text.removeprefix("local-dir:"), settings, pointer)
        if not path.is_dir():
            raise InvalidRequest.at(pointer, f"{path} is not a folder; give one in open_clip's local-dir layout")
        return f"local-dir:{path}"
    if not text.startswith(HUB_KINDS):
        raise InvalidRequest.at(pointer, "must begin with local-dir: or hf-hub:")
    if not settings.allow_hub:
        raise InvalidRequest.at(
            pointer,
            "this server takes no model from a hub (EFFACE_ALLOW_HUB is off); register the weights with POST /models",
        )
    if not _HUB_NAME.fullmatch(text):
        raise InvalidRequest.at(pointer, "is no name that a hub knows; write hf-hub:owner/name, or a tag of open_clip")
    return text


def allowed_path(text: str, settings: Settings, pointer: str) -> Path:
    """Return a local path if it lies below a root that the operator listed, links followed.

    The objects of a `file://` storage are no part of any root: they are other tenants', too.

    Raises:
        InvalidRequest: it does not, or nothing is there.
    """
    roots = [root.resolve() for root in settings.path_roots]
    objects = local_folder(settings.storage_url)
    try:
        path = Path(text).resolve()
        hidden = objects is not None and _overlap(path, objects.resolve())
        allowed = not hidden and any(path.is_relative_to(root) for root in roots)
        there = allowed and path.exists()
    except (OSError, RuntimeError) as error:  # too long for the file system, or a loop of links
        raise InvalidRequest.at(pointer, "is no path that can be looked up") from error
    if not allowed:
        raise InvalidRequest.at(
            pointer, f"{text!r} is no id, and this server allows no path there (EFFACE_PATH_ROOTS); upload it instead"
        )
    if not there:
        raise InvalidRequest.at(pointer, f"there is nothing at {text!r}")
    return path


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)

"""What a request may refer to besides registered things: local paths and model hubs, where the
operator allows them.
"""

from pathlib import Path

from shared.errors import InvalidRequest
from shared.ports.object_storage import local_folder
from shared.request_rules.references import (
    HUB_KINDS,
    LOCAL_DIR,
    existing,
    hub_model,
    looked_up,
    model_in,
    source_of,
)
from shared.schemas.model_reference import ModelReference
from shared.settings import Settings


def model_reference(reference: ModelReference, settings: Settings, pointer: str) -> str:
    """Return an unregistered model as a `ModelSource.reference`.

    Raises:
        InvalidRequest: the operator does not allow it, or it is not one of the known kinds.
    """
    text, pointer = source_of(reference, pointer)
    if text.startswith(LOCAL_DIR):
        return model_in(
            allowed_path(text.removeprefix(LOCAL_DIR), settings, pointer), pointer
        ).reference
    if text.startswith(HUB_KINDS) and not settings.allow_hub:
        raise InvalidRequest.at(
            pointer,
            (
                "this server takes no model from a hub (EFFACE_ALLOW_HUB is off); register the "
                "weights with POST /models"
            ),
        )
    return hub_model(text, pointer).reference


def allowed_path(text: str, settings: Settings, pointer: str) -> Path:
    """Return a local path if it lies below a root that the operator listed, links followed.

    The objects of a `file://` storage are no part of any root: they are other tenants', too.

    Raises:
        InvalidRequest: it does not, or nothing is there.
    """
    roots = [root.resolve() for root in settings.path_roots]
    objects = local_folder(settings.storage_url)
    path = looked_up(text, pointer)
    hidden = objects is not None and _overlap(path, objects.resolve())
    if hidden or not any(path.is_relative_to(root) for root in roots):
        raise InvalidRequest.at(
            pointer,
            (
                f"{text!r} is no id, and this server allows no path there (EFFACE_PATH_ROOTS); "
                "upload "
                "it instead"
            ),
        )
    return existing(path, text, pointer)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)

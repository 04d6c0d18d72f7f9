"""What a request may refer to besides registered things: local paths and model hubs, where the operator allows them."""

from pathlib import Path

from shared.errors import InvalidRequest
from shared.schemas.request import ModelReference
from shared.settings import Settings
from shared.storage import local_folder

HUB_KINDS = ("hf-hub:", "open_clip:")


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
    return text


def allowed_path(text: str, settings: Settings, pointer: str) -> Path:
    """Return a local path if it lies below a root that the operator listed, links followed.

    The objects of a `file://` storage are no part of any root: they are other tenants', too.

    Raises:
        InvalidRequest: it does not, or nothing is there.
    """
    path = Path(text).resolve()
    roots = [root.resolve() for root in settings.path_roots]
    objects = local_folder(settings.storage_url)
    hidden = objects is not None and _overlap(path, objects.resolve())
    if hidden or not any(path.is_relative_to(root) for root in roots):
        raise InvalidRequest.at(
            pointer, f"{text!r} is no id, and this server allows no path there (EFFACE_PATH_ROOTS); upload it instead"
        )
    if not path.exists():
        raise InvalidRequest.at(pointer, f"there is nothing at {text!r}")
    return path


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)

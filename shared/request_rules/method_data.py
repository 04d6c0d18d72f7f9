"""Whether a request gives what its method learns from, and what its target is measured on. Needs
no torch.
"""

from collections.abc import Iterator

from shared.errors import FieldError
from shared.schemas.methods import METHOD_IMAGES, AutoParameters
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import ModelSource

SHOWS = {"forget": "what is to be forgotten", "retain": "what is close and must stay"}
SAME_MODEL = (
    "is the model that is to be edited; name one that was trained without what is "
    "forgotten, or leave it out"
)


def data_errors(request: ErasureRequest) -> list[FieldError]:
    """Return what is wrong with the data of a request, whatever is in it.

    A subgroup is shown by images alone, so it needs `data.forget`, and something to measure the
    rest of the class on."""
    name, parameters = request.method.name, request.method.parsed()
    errors = list(_missing(request, name))
    if isinstance(parameters, AutoParameters):
        errors += [
            FieldError(
                "/method/parameters/methods",
                f"names {chosen!r}, for which {error.pointer[1:]} {error.detail}",
            )
            for chosen in parameters.methods
            for error in _missing(request, chosen)
        ]
    return errors


def reference_errors(model: ModelSource, reference: ModelSource | None) -> list[FieldError]:
    """Return what is wrong with `audit.reference`: that it is the very model which is to be edited.

    Two names of the same weights are told by their digests, where these are known; the worker
    looks again."""
    if reference is None:
        return []
    same_weights = model.digest is not None and model.digest == reference.digest
    return (
        [FieldError("/audit/reference", SAME_MODEL)]
        if same_weights or model.reference == reference.reference
        else []
    )


def fits(request: ErasureRequest, method: str) -> bool:
    """True where a request gives all that a method needs."""
    return not any(_missing(request, method))


def _missing(request: ErasureRequest, method: str) -> Iterator[FieldError]:
    needed = METHOD_IMAGES[method]
    subgroup = request.target.type == "subgroup"
    if subgroup and not needed and method != "auto":
        others = ", ".join(name for name, images in METHOD_IMAGES.items() if images)
        yield FieldError(
            "/method/name",
            (
                f"{method} works from class names and cannot tell a subgroup; use auto or one of "
                f"{others}"
            ),
        )
        return
    for field in dict.fromkeys((*(("forget",) if subgroup else ()), *needed)):
        if getattr(request.data, field) is None:
            yield FieldError(
                f"/data/{field}",
                (
                    f"is missing; {method} needs images of {SHOWS[field]}, as a data set's id "
                    "(POST "
                    "/datasets)"
                ),
            )
    if (
        subgroup
        and "retain" not in needed
        and request.data.retain is None
        and request.data.retain_test is None
    ):
        yield FieldError(
            "/data/retain_test",
            "is missing; the rest of the class is measured on it, or on data.retain",
        )

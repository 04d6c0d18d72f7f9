"""`auto`: which methods to try for a request, and in which order. How they are judged is in
`worker/candidates.py`.

| target | images given | in this order |
|---|---|---|
| class | none | synthetic, null_space, synthetic (samples_only) |
| class | forget | delete, synthetic, pbu, null_space |
| class | forget, retain | three_stage, synthetic, delete, slug |
| subgroup | forget | delete, pbu |
| subgroup | forget, retain | three_stage, delete, slug, clip_erase |

What learns from images of the target goes first where there are some, because it reaches the
image encoder; what keeps the rest best in our benchmarks goes before what costs more. Where the
request is judged on synthetic samples, only the method that makes them is tried."""

from shared.request_rules.method_data import fits
from shared.schemas.methods import AutoParameters
from shared.schemas.request import ErasureRequest, Method, Thresholds

SYNTHETIC, SAMPLES_ONLY = (
    Method(name="synthetic"),
    Method(name="synthetic", parameters={"mode": "samples_only"}),
)
NULL_SPACE, THREE_STAGE, DELETE = (
    Method(name="null_space"),
    Method(name="three_stage"),
    Method(name="delete"),
)
SLUG, CLIP_ERASE, PBU = Method(name="slug"), Method(name="clip_erase"), Method(name="pbu")

OF_CLASSES: dict[tuple[str, ...], tuple[Method, ...]] = {
    (): (SYNTHETIC, NULL_SPACE, SAMPLES_ONLY),
    ("forget",): (DELETE, SYNTHETIC, PBU, NULL_SPACE),
    ("forget", "retain"): (THREE_STAGE, SYNTHETIC, DELETE, SLUG),
}
OF_SUBGROUPS: dict[tuple[str, ...], tuple[Method, ...]] = {
    ("forget",): (DELETE, PBU),
    ("forget", "retain"): (THREE_STAGE, DELETE, SLUG, CLIP_ERASE),
}


def candidates(
    request: ErasureRequest, parameters: AutoParameters, thresholds: Thresholds
) -> tuple[Method, ...]:
    """Return the methods to try, in order, each one fitting the request; at least one, at most
    `parameters.most`.
    """
    chosen = tuple(Method(name=name) for name in parameters.methods) or _usual(request)
    if thresholds.max_synthetic_accuracy is not None:
        chosen = tuple(method for method in chosen if method.name == "synthetic") or (
            SYNTHETIC,
            SAMPLES_ONLY,
        )
    return tuple(method for method in chosen if fits(request, method.name))[: parameters.most]


def _usual(request: ErasureRequest) -> tuple[Method, ...]:
    given = tuple(
        field for field in ("forget", "retain") if getattr(request.data, field) is not None
    )
    table = OF_CLASSES if request.target.type == "class" else OF_SUBGROUPS
    return table[
        given if given in table else ()
    ]  # retain images alone teach nothing about the target

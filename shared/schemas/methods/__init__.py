"""The parameters of each method: checked when a request is posted, read where torch is. And what
data each method needs.
"""

from shared.schemas.methods.auto import AutoParameters
from shared.schemas.methods.clip_erase import ClipEraseParameters
from shared.schemas.methods.delete import DeleteParameters
from shared.schemas.methods.gradient_ascent import GradientAscentParameters
from shared.schemas.methods.image_training import ImageTrainingParameters
from shared.schemas.methods.null_space import NullSpaceParameters
from shared.schemas.methods.pbu import PbuParameters
from shared.schemas.methods.slug import SlugParameters
from shared.schemas.methods.synthetic import SyntheticParameters
from shared.schemas.methods.three_stage import ThreeStageParameters

MethodParameters = (
    SyntheticParameters
    | ThreeStageParameters
    | NullSpaceParameters
    | DeleteParameters
    | SlugParameters
    | ClipEraseParameters
    | PbuParameters
    | GradientAscentParameters
    | AutoParameters
)

METHOD_PARAMETERS: dict[str, type[MethodParameters]] = {
    "synthetic": SyntheticParameters,
    "three_stage": ThreeStageParameters,
    "null_space": NullSpaceParameters,
    "delete": DeleteParameters,
    "slug": SlugParameters,
    "clip_erase": ClipEraseParameters,
    "pbu": PbuParameters,
    "gradient_ascent": GradientAscentParameters,
    "auto": AutoParameters,
}

METHOD_IMAGES: dict[str, tuple[str, ...]] = {
    "synthetic": (),
    "three_stage": ("forget", "retain"),
    "null_space": (),
    "delete": ("forget",),
    "slug": ("forget", "retain"),
    "clip_erase": ("forget", "retain"),
    "pbu": ("forget",),
    "gradient_ascent": ("forget",),
    "auto": (),
}
"""The fields of `data` that a method learns from, beside the names that every request gives."""

__all__ = [
    "METHOD_IMAGES",
    "METHOD_PARAMETERS",
    "AutoParameters",
    "ClipEraseParameters",
    "DeleteParameters",
    "GradientAscentParameters",
    "ImageTrainingParameters",
    "MethodParameters",
    "NullSpaceParameters",
    "PbuParameters",
    "SlugParameters",
    "SyntheticParameters",
    "ThreeStageParameters",
]

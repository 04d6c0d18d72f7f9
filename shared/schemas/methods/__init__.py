"""The parameters of each method: checked when a request is posted, read where torch is."""

from shared.schemas.methods.synthetic import SyntheticParameters
from shared.schemas.methods.three_stage import ThreeStageParameters

MethodParameters = SyntheticParameters | ThreeStageParameters

METHOD_PARAMETERS: dict[str, type[SyntheticParameters] | type[ThreeStageParameters]] = {
    "synthetic": SyntheticParameters,
    "three_stage": ThreeStageParameters,
}

__all__ = ["METHOD_PARAMETERS", "MethodParameters", "SyntheticParameters", "ThreeStageParameters"]

"""What the audit measures besides the accuracies of `report.py`: one record per measure, for
every model that was there.
"""

from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema

Group = Literal[
    "forgetting",
    "retention",
    "transfer",
    "representation",
    "towers",
    "relearning",
    "membership",
    "reference",
    "weights",
]
"""What a measure speaks about; the report has a section for each."""

Unit = Literal["share", "points", "ratio", "count", "similarity"]
Better = Literal["lower", "higher", "neither"]


class Value(Schema):
    """A number with its 95 % interval and the number of observations behind it; without either
    where none applies.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Measure(Schema):
    """One measure on one evaluation set."""

    name: str = Field(description="as a threshold names it: `worst_prompt_recall`")
    title: str = Field(description="as people read it: `Recall under the worst prompt`")
    group: Group
    where: str = Field(description="the evaluation set, or what else it was measured on")
    unit: Unit = "share"
    better: Better
    original: Value | None
    unlearned: Value
    reference: Value | None = Field(
        None, description="of a model that never saw the data, where there is one"
    )
    definition: str = Field(description="in one sentence, for someone who has to check it")
    source: str = Field(description="where the measure comes from")
    detail: str | None = Field(None, description="what decided it: the prompt, the class, the set")
    counts: bool = Field(
        True,
        description=(
            "false: the original does not know the words that it is about, so it never "
            "counts as the worst"
        ),
    )


class CurvePoint(Schema):
    """One point of a curve."""

    x: float
    y: float


class Curve(Schema):
    """What changes over steps or images: the relearn curve, the forgetting curve."""

    name: str
    title: str
    x_label: str
    y_label: str
    original: tuple[CurvePoint, ...] = ()
    unlearned: tuple[CurvePoint, ...] = ()
    reference: tuple[CurvePoint, ...] = ()


class NotMeasured(Schema):
    """A measure that this request gave nothing to measure on, said rather than left out."""

    name: str
    reason: str

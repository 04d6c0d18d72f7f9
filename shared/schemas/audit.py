"""What a request says about its audit: how deep it goes, what it tries, and thresholds on single
measures.
"""

from difflib import get_close_matches
from functools import cached_property
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from shared.names import given_twice, name_key
from shared.schemas.base import Label, Schema
from shared.schemas.measure_catalogue import CATALOGUE, Level
from shared.schemas.model_reference import ModelReference


class Audit(Schema):
    """How the result is examined. The method sees nothing of this."""

    level: Level = Field(
        "standard", description="standard takes seconds; thorough adds relearning and takes minutes"
    )
    names: tuple[Label, ...] | dict[Label, tuple[Label, ...]] = Field(
        (),
        max_length=50,
        description="other names of what is forgotten, which the audit tries and no method reads; "
        "with several classes, a list under each name",
    )
    kinds: dict[Label, Label] = Field(
        default_factory=dict,
        max_length=1000,
        description="what a label is one of, where the audit's own words do not say: cat -> animal",
    )
    reference: ModelReference | None = Field(
        None,
        description=(
            "a model that never saw what is forgotten, to compare with; named as the "
            "request's model is"
        ),
    )

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the other names to try for one of the forgotten classes."""
        if not isinstance(self.names, dict):
            return self.names
        key = name_key(name)
        return next((names for own, names in self.names.items() if name_key(own) == key), ())

    def kind_of(self, label: str) -> str | None:
        """Return what a label is one of, as the request says it."""
        return self._kinds.get(name_key(label))

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {name_key(label): kind for label, kind in self.kinds.items()}

    @field_validator("names", "kinds")
    @classmethod
    def _each_once(
        cls, given: tuple[str, ...] | dict[str, Any]
    ) -> tuple[str, ...] | dict[str, Any]:
        if isinstance(given, dict) and (twice := given_twice(given)):
            raise ValueError(
                f"names {', '.join(map(repr, twice))}, which are one name for CLIP; leave one "
                "of "
                "them"
            )
        return given


class MeasureThreshold(Schema):
    """A bound on one measure of the audit, judged by the worse end of its 95 % interval."""

    measure: str = Field(examples=["worst_prompt_recall"], description="a name of docs/audit.md")
    max: float | None = Field(None, allow_inf_nan=False)
    min: float | None = Field(None, allow_inf_nan=False)
    where: Label | None = Field(
        None, description="the evaluation set that is judged; all of them where it is left out"
    )

    @field_validator("measure")
    @classmethod
    def _known(cls, measure: str) -> str:
        if measure not in CATALOGUE:
            close = get_close_matches(measure, CATALOGUE, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "docs/audit.md lists them all"
            raise ValueError(f"names no measure of the audit; {hint}")
        return measure

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.max is None and self.min is None:
            raise ValueError("must give max or min, or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(
                f"min {self.min:g} lies above max {self.max:g}; no value could meet both"
            )
        return self

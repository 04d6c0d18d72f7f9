"""What all schemas share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Schema(BaseModel):
    """A value that came from outside or goes outside. Unknown fields are errors: a misspelt one is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


def printable(text: str) -> str:
    """Return the text.

    Raises:
        ValueError: it holds control characters, or white space at an end.
    """
    if not text.isprintable():
        raise ValueError("must not hold control characters or line breaks")
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return text


Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
"""A class name, as it stands in prompts."""

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A share in [0, 1]."""

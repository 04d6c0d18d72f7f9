"""Lists as clients see them: a page at a time, newest first, and whether more follow."""

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

T = TypeVar("T")


class Listing(BaseModel, Generic[T]):
    """One page. The next one begins after the id of the last item."""

    object: Literal["list"] = "list"
    data: Sequence[T]
    has_more: bool = Field(description="ask again with ?after=<id of the last item>")


Text = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A query parameter that Postgres can store."""
After = Annotated[
    str | None,
    Query(
        max_length=64, pattern=r"^[a-z0-9_]+$", description="id of the last item of the page before"
    ),
]
Limit = Annotated[int, Query(ge=1, le=100, description="items on a page")]

"""What the pipeline needs from whoever runs it: somewhere to say how far it is."""

from collections.abc import Mapping
from typing import Protocol

from shared.states import Stage


class Progress(Protocol):
    """Takes what a running job has to tell. Calls are cheap: an implementation may drop steps
    that come too fast, never stages.
    """

    def stage(self, stage: Stage) -> None:
        """Say that `stage` begins."""

    def step(
        self,
        stage: Stage,
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Say that `step` of `total` (None where nobody knows) is done, and what was measured at
        it.
        """


class Silent:
    """Tells nobody."""

    def stage(self, stage: Stage) -> None:
        """Say nothing."""

    def step(
        self,
        stage: Stage,
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Say nothing."""

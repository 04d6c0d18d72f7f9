"""A short storm: whatever was done to the service, every promise is kept."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.storm import Plan, storm

PLAN = Plan(jobs=16, seed=7, workers=2, relays=1, webhook=False, storm_seconds=15)
"""No webhook: a call that a killed relay has left under way is made again after a minute only."""


@pytest.mark.timeout(600)
def test_every_promise_is_kept() -> None:
    with TemporaryDirectory(prefix="storm-") as folder:  # a short path, for there are sockets in it
        outcome = storm(PLAN, Path(folder) / "storm")
    assert outcome.blows.total() > 0
    assert [promise for promise in outcome.promises if not promise.kept] == []

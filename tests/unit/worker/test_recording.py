"""What is kept of a method's steps."""

import json
import math

from shared.schemas.measures import CurvePoint
from shared.states import Stage
from worker.ports import Silent
from worker.recording import MOST_POINTS, Recording


class Listener(Silent):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def stage(self, stage):
        self.heard.append(stage)

    def step(self, stage, step, total=None, metrics=None):
        self.heard.append((stage, step, total, metrics))


def points(recording: Recording, number: int = 0) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in recording.curves()[number].unlearned]


def test_everything_is_passed_on_and_numbers_are_kept() -> None:
    listener = Listener()
    recording = Recording(listener)
    recording.stage(Stage.FORGETTING)
    recording.step(Stage.FORGETTING, 1, 2, {"forget_accuracy": 0.5, "loss": math.nan})
    recording.step(Stage.FORGETTING, 2, 2, {"forget_accuracy": 0.25, "loss": 3.0})
    recording.step(Stage.AUDITING, 1)
    assert listener.heard[0] is Stage.FORGETTING
    assert [heard[:3] for heard in listener.heard[1:]] == [
        (Stage.FORGETTING, 1, 2),
        (Stage.FORGETTING, 2, 2),
        (Stage.AUDITING, 1, None),
    ]
    accuracy, loss = recording.curves()
    assert (accuracy.name, accuracy.title) == ("steps.forgetting.forget_accuracy", "Forgetting: forget accuracy")
    assert accuracy.unlearned == (CurvePoint(x=1, y=0.5), CurvePoint(x=2, y=0.25))
    assert loss.unlearned == (CurvePoint(x=2, y=3.0),)


def test_a_count_that_begins_again_goes_on() -> None:
    recording = Recording(Silent())
    for step in (1, 2, 1, 2):
        recording.step(Stage.REMINDING, step, 2, {"loss": step})
    assert points(recording) == [(1, 1), (2, 2), (3, 1), (4, 2)]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    recording = Recording(Silent())
    for step in range(5001):
        recording.step(Stage.FORGETTING, step, 5000, {"loss": 1 / (1 + step)})
    kept = points(recording)
    assert len(kept) == MOST_POINTS
    assert (kept[0][0], kept[-1][0]) == (0, 5000)
    assert kept == sorted(kept)


def test_what_a_checkpoint_brings_back_is_gone_on_with() -> None:
    first, second = Recording(Silent()), Recording(Silent())
    first.step(Stage.FORGETTING, 1, 1, {"loss": 0.5})
    second.steps |= json.loads(json.dumps(first.steps))
    second.step(Stage.FORGETTING, 1, 1, {"loss": 0.25})
    assert points(second) == [(1, 0.5), (2, 0.25)]

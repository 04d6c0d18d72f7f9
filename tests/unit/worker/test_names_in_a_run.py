"""Folders, labels and classes in several spellings: what is measured is what was asked, and what was not is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from shared.errors import JobFailure
from shared.ports.object_storage import Storage
from shared.schemas.report import Report
from shared.schemas.request import ErasureRequest
from shared.schemas.resolution import MeasuredSet
from shared.settings import Settings
from shared.states import Stage
from tests.support.reports import checked
from tests.support.tiny import write_model, write_pictures
from worker.data.archives import folder_files, image_set
from worker.data.images import ImageSet
from worker.evaluation.plan import make_plan
from worker.evaluation.separation import Opened
from worker.pipeline import run_pipeline
from worker.report import left_out
from worker.resolve import resolve_paths

LABELS = ["Red", "fire truck", "blue"]


class Silent:
    """Listens to nobody."""

    def stage(self, stage: Stage) -> None:
        """Hear of a stage."""

    def step(
        self, stage: Stage, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Hear of a step."""


def pictures(folder: Path, *classes: str, count: int = 2) -> ImageSet:
    write_pictures(folder, classes, count, seed=crc32(folder.name.encode()))  # no two sets have an image in common
    return image_set(folder.name, f"digest of {folder.name}", folder, folder_files(folder))


def request(*evaluation: str, target: Mapping[str, Any] | None = None, **changes: Any) -> ErasureRequest:
    body = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "RED", "labels": LABELS} | (target or {}),
        "method": {"name": "synthetic"},
        "data": {"evaluation": [{"name": name, "dataset": "ds"} for name in evaluation]},
    }
    return ErasureRequest.model_validate(body | changes)


def opened(**sets: Any) -> Opened:
    roles = ("forget", "retain", "calibration", "proxy", "forget_test", "retain_test")
    return Opened(
        **{role: sets.get(role) for role in roles},
        evaluation=sets.get("evaluation", ()),
        earlier=sets.get("earlier", ()),
    )


def test_folders_are_the_labels_that_they_are_called_as(tmp_path: Path) -> None:
    images = pictures(tmp_path / "own", "red", "fire_truck", "BLUE")
    plan = make_plan(request("own"), opened(evaluation=(images,)))
    (own,) = plan.measurements
    assert (own.role, own.labels) == ("target", tuple(LABELS))
    assert set(zip(own.images.names(), own.roles, strict=True)) == {
        ("Red", "forget"),
        ("fire truck", "retain"),
        ("blue", "retain"),
    }
    assert own.images.digest == images.digest
    assert own.view.truth.tolist() == [LABELS.index(name) for name in own.images.names()]


def test_images_of_folders_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    images = pictures(tmp_path / "own", "red", "zebra_x", "blue", "Zebra_Y", count=3)
    plan = make_plan(request("own"), opened(evaluation=(images,)))
    (own,) = plan.measurements
    assert own.labels == tuple(LABELS)
    assert sorted(own.images.names()) == ["Red"] * 3 + ["blue"] * 3
    assert plan.sets[0].left_out == {"Zebra_Y": 3, "zebra_x": 3}
    (said,) = left_out(plan.sets)
    assert "6 images" in said
    assert "2 folders" in said
    assert "zebra" not in said.lower()


def test_two_folders_of_one_name_are_one_class(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", ("red", "Blue"), 2)
    write_pictures(tmp_path / "two", ("blue",), 3, seed=1)
    (tmp_path / "two" / "blue").rename(tmp_path / "one" / "blue")
    images = image_set("own", "d", tmp_path / "one", folder_files(tmp_path / "one"))
    (own,) = make_plan(request("own"), opened(evaluation=(images,))).measurements
    assert own.images.names().count("blue") == 5
    assert set(own.images.classes) == {"Red", "blue"}


def test_other_sets_keep_their_own_names_but_for_the_labels_among_them(tmp_path: Path) -> None:
    own = pictures(tmp_path / "own", "red", "blue")
    other = pictures(tmp_path / "other", "RED", "cup", "Blue")
    known = pictures(tmp_path / "known", "Blue", "Fire_Truck")
    plan = make_plan(request("own", "other", "known"), opened(evaluation=(own, other, known)))
    _, second, third = plan.measurements
    assert (second.role, second.labels) == ("transfer", ("Red", "blue", "cup"))
    assert {name for name, role in zip(second.images.names(), second.roles, strict=True) if role == "forget"} == {"Red"}
    assert (third.role, third.labels) == ("transfer", tuple(LABELS))


def test_what_a_method_learns_from_has_the_names_of_the_labels(tmp_path: Path) -> None:
    asked = request(
        target={"class": "red"}, method={"name": "delete"}, data={"forget": "f", "retain": "r", "calibration": "c"}
    )
    forget, retain = pictures(tmp_path / "f", "rEd", count=6), pictures(tmp_path / "r", "FIRE_TRUCK", "Blue", count=6)
    calibration = pictures(tmp_path / "c", "BLUE", "cup")
    plan = make_plan(asked, opened(forget=forget, retain=retain, calibration=calibration))
    assert plan.data.forget is not None
    assert plan.data.retain is not None
    assert plan.data.calibration_retain is not None
    assert set(plan.data.forget.names()) == {"Red"}
    assert set(plan.data.retain.names()) == {"fire truck", "blue"}
    assert set(plan.data.calibration_retain.names()) == {"blue", "cup"}
    assert plan.measurements[0].roles.count("forget") == 1


def test_labels_that_come_from_the_data_are_each_there_once(tmp_path: Path) -> None:
    target = {"type": "subgroup", "class": "Red", "subgroup": "dark", "labels": []}
    asked = request(target=target, method={"name": "delete"}, data={"forget": "f", "retain": "r"})
    sets = opened(
        forget=pictures(tmp_path / "f", "dark", count=6),
        retain=pictures(tmp_path / "r", "red", "blue", "BLUE", count=6),
    )
    plan = make_plan(asked, sets)
    assert plan.labels == ("BLUE", "Red")
    assert set(plan.measurements[0].images.names()) <= {"BLUE", "Red"}
    assert "sibling" in plan.measurements[0].roles


def test_earlier_images_have_the_labels_that_they_were_given(tmp_path: Path) -> None:
    earlier = {"name": "before", "dataset": "e", "labels": ["Violet", "white"]}
    asked = request(data={"evaluation": [{"name": "own", "dataset": "o"}], "earlier": [earlier]})
    own, before = pictures(tmp_path / "own", "red", "blue"), pictures(tmp_path / "e", "violet", count=5)
    plan = make_plan(asked, opened(evaluation=(own,), earlier=(before,)))
    assert plan.measurements[1].labels == ("Violet", "white")
    assert set(plan.measurements[1].images.names()) == {"Violet"}


def run(folder: Path, *folders: str, **target: Any) -> Report:
    write_model(folder / "model", "vit")
    write_pictures(folder / "own", folders, 4)
    body = {
        "model": {"source": f"local-dir:{folder / 'model'}"},
        "target": {"type": "class", "class": "red", "labels": LABELS} | target,
        "method": {"name": "null_space"},
        "data": {"evaluation": [{"name": "own", "dataset": str(folder / "own")}]},
        "thresholds": {"max_forget_accuracy": 1.0, "max_retain_drop": 1.0},
    }
    spec = resolve_paths(ErasureRequest.model_validate(body), Settings(_env_file=None))  # type: ignore[call-arg]
    storage, scratch = Storage(f"file://{folder}/objects"), folder / "scratch"
    scratch.mkdir()
    run_pipeline(spec, storage, Silent(), scratch, "cpu")
    (folder / "page.html").write_bytes(storage.get(f"{spec.attempt_prefix}/report.html"))
    return checked(storage.get(f"{spec.attempt_prefix}/report.json"))


def test_a_report_says_what_was_read_how_and_what_was_left_out(tmp_path: Path) -> None:
    report = run(tmp_path, "red", "fire_truck", "zebra_x")

    (own,) = report.evaluations
    assert (own.role, own.labels) == ("target", tuple(LABELS))
    assert own.forget is not None
    assert own.forget.after.n == 4
    assert {result.name: result.role for result in own.classes} == {"Red": "forget", "fire truck": "retain"}
    assert {threshold.measure for threshold in report.thresholds} == {"max_forget_accuracy", "max_retain_drop"}
    said = [(warning.pointer, warning.detail) for warning in report.warnings]
    assert {pointer for pointer, _ in said} == {"/data/evaluation/0/dataset"}
    (mapped, outside, unseen) = (detail for _, detail in said)
    assert "'red' as 'Red'" in mapped
    assert "'fire_truck' as 'fire truck'" in mapped
    assert "'zebra_x'" in outside
    assert "4 images" in outside
    assert "'blue'" in unseen
    assert any("4 images" in limit for limit in report.limits)
    page = (tmp_path / "page.html").read_text()
    assert "What the request was told" in page
    assert "zebra_x" in page


def test_labels_that_the_models_own_tokenizer_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve"  # the model reads sixteen tokens
    with pytest.raises(JobFailure, match="makes the same of the labels") as caught:
        run(tmp_path, "red", "blue", labels=["red", "blue", f"{words} a", f"{words} b"])
    assert caught.value.code == "invalid_labels"


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    whole = MeasuredSet(name="own", role="target", classes={"red": 3}, labels=("red",))
    assert list(left_out((whole,))) == []

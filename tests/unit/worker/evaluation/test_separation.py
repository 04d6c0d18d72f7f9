"""No image in two roles: refused where it goes and stays, not measured where the method saw it, named where it looks alike."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api.demo.drawings import Cell, cells, drawings
from shared.errors import JobFailure
from shared.schemas.report import Separation
from shared.schemas.request import ErasureRequest
from tests.support.tiny import write_pictures
from worker.data.archives import folder_digest, folder_files, image_set
from worker.data.images import ImageSet
from worker.data.lookalikes import lookalikes, thumbnails
from worker.data.splits import content_hashes, split
from worker.evaluation.plan import Plan, make_plan
from worker.evaluation.separation import Opened
from worker.report import separation_limits

LABELS = ["red", "green", "blue"]
NOTHING = Opened(None, None, None, None, None, None, ())


def opened_at(folder: Path) -> ImageSet:
    files = folder_files(folder)
    return image_set(folder.name, folder_digest(folder, files), folder, files)


def pictures(folder: Path, *classes: str, count: int = 10, seed: int = 0) -> ImageSet:
    return opened_at(write_pictures(folder, classes, count, seed))


def together(folder: Path, *sets: ImageSet) -> ImageSet:
    """Copy images of several sets into one, under other names."""
    for number, images in enumerate(sets):
        for index, (path, name) in enumerate(zip(images.paths, images.names(), strict=True)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name / f"copy-{number}-{index}.png")
    return opened_at(folder)


def request(method: str = "delete", *, evaluation: int = 0, earlier: int = 0, **changes: Any) -> ErasureRequest:
    data = {
        "forget": "f",
        "retain": "r",
        "evaluation": [{"name": f"set {number}", "dataset": f"e{number}"} for number in range(evaluation)],
        "earlier": [{"name": f"before {number}", "dataset": f"b{number}"} for number in range(earlier)],
    }
    body = {
        "model": {"id": "m"},
        "target": {"type": "class", "class": "red", "labels": LABELS},
        "method": {"name": method},
        "data": data,
    }
    return ErasureRequest.model_validate(body | changes)


def seen(plan: Plan) -> set[str]:
    data = plan.data
    return content_hashes(
        data.forget, data.retain, data.calibration_forget, data.calibration_retain, data.proxy, data.earlier
    )


def pair(plan: Plan, place: str, role: str) -> Separation:
    (found,) = [p for p in plan.separation if (p.place, p.seen_as) == (place, role)]
    return found


def test_an_evaluation_set_is_measured_without_what_the_method_saw(tmp_path: Path) -> None:
    forget = pictures(tmp_path / "f", "red", count=8)
    retain = pictures(tmp_path / "r", "green", "blue", count=4, seed=1)
    proxy = pictures(tmp_path / "p", "green", count=3, seed=2)
    calibration = pictures(tmp_path / "c", "blue", count=3, seed=3)
    fresh = pictures(tmp_path / "fresh", *LABELS, count=5, seed=4)
    everything = together(tmp_path / "all", forget.subset([0, 1]), retain.subset([0, 5, 6]), proxy, calibration, fresh)
    given = replace(
        NOTHING, forget=forget, retain=retain, proxy=proxy, calibration=calibration, evaluation=(everything,)
    )
    plan = make_plan(request(evaluation=1), given)
    (own,) = plan.measurements
    assert own.role == "target"
    assert content_hashes(own.images) == content_hashes(fresh)
    assert not seen(plan) & content_hashes(own.images)
    counts = {role: pair(plan, "all", role).identical for role in ("forget", "retain", "proxy", "calibration")}
    assert counts == {"forget": 2, "retain": 3, "proxy": 3, "calibration": 3}
    assert pair(plan, "all", "forget").example == "red/copy-0-0.png"
    (said,) = separation_limits(plan.separation)
    assert "2 of data.forget, 3 of data.retain, 3 of data.calibration, 3 of data.proxy" in said
    assert "red" not in said  # certificates repeat these words


def test_a_set_that_shares_nothing_stays_as_it_is(tmp_path: Path) -> None:
    forget, own = pictures(tmp_path / "f", "red"), pictures(tmp_path / "own", *LABELS, seed=1)
    plan = make_plan(request(evaluation=1), replace(NOTHING, forget=forget, evaluation=(own,)))
    assert plan.measurements[0].images is own  # and what was seen in it before is found again
    assert [p for p in plan.separation if p.identical or p.similar] == []
    assert list(separation_limits(plan.separation)) == []


def test_a_method_that_sees_no_image_leaves_nothing_out(tmp_path: Path) -> None:
    forget, fresh = pictures(tmp_path / "f", "red"), pictures(tmp_path / "own", "green", "blue", seed=1)
    both = together(tmp_path / "both", forget, fresh)
    plan = make_plan(request("synthetic", evaluation=1), replace(NOTHING, forget=forget, evaluation=(both,)))
    assert plan.measurements[0].images is both
    assert plan.separation == ()


@pytest.mark.parametrize(("gone", "kept"), list(product(["forget", "forget_test"], ["retain", "retain_test"])))
def test_an_image_cannot_go_and_stay(tmp_path: Path, gone: str, kept: str) -> None:
    reds = pictures(tmp_path / "f", "red", count=4)
    mixed = together(tmp_path / "r", reds.subset([1, 3]), pictures(tmp_path / "x", "green", "blue", seed=1))
    roles: dict[str, ImageSet] = {gone: reds, kept: mixed}
    with pytest.raises(
        JobFailure, match=rf"2 images are in data\.{gone} and in data\.{kept} both, .*'red/1\.png'"
    ) as failure:
        make_plan(request("synthetic"), replace(NOTHING, **roles))  # type: ignore[arg-type]
    assert failure.value.code == "invalid_dataset"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (["green", "blue"], "No image of the target is left to measure on: all of them in 'own'"),
        (["red"], "No image of what stays is left to measure on"),
        ([], "Every image of 'own' is also one of data.forget or data.retain"),
    ],
)
def test_where_nothing_is_left_it_says_what_to_do(tmp_path: Path, left: list[str], words: str) -> None:
    forget = pictures(tmp_path / "f", "red")
    retain = pictures(tmp_path / "r", "green", "blue", seed=1)
    sets = [forget, retain] + ([pictures(tmp_path / "fresh", *left, seed=2)] if left else [])
    own = together(tmp_path / "own", *sets)
    with pytest.raises(JobFailure, match=words) as failure:
        make_plan(request(evaluation=1), replace(NOTHING, forget=forget, retain=retain, evaluation=(own,)))
    assert "that the method does not see" in str(failure.value)


def test_another_set_that_shows_the_target_takes_its_place(tmp_path: Path) -> None:
    forget, others = pictures(tmp_path / "f", "red"), pictures(tmp_path / "x", "green", "blue", seed=1)
    seen_set = together(tmp_path / "seen", forget, others)
    fresh = pictures(tmp_path / "fresh", *LABELS, seed=2)
    plan = make_plan(request(evaluation=2), replace(NOTHING, forget=forget, evaluation=(seen_set, fresh)))
    assert [(m.name, m.role, "forget" in m.roles) for m in plan.measurements] == [
        ("set 0", "transfer", False),
        ("set 1", "target", True),
    ]


def test_calibration_and_proxy_give_up_what_is_to_go(tmp_path: Path) -> None:
    forget, retain = pictures(tmp_path / "f", "red"), pictures(tmp_path / "r", "green", "blue", seed=1)
    fresh = pictures(tmp_path / "x", "green", "blue", count=3, seed=2)
    proxy = together(tmp_path / "p", forget.subset([0]), retain.subset([0]), fresh)
    calibration = together(tmp_path / "c", forget.subset([2]), retain.subset([1, 2]), fresh)
    own = pictures(tmp_path / "own", *LABELS, seed=5)
    given = replace(NOTHING, forget=forget, retain=retain, proxy=proxy, calibration=calibration, evaluation=(own,))
    plan = make_plan(request(evaluation=1), given)
    assert plan.data.calibration_retain is not None
    assert plan.data.proxy is not None
    assert content_hashes(plan.data.calibration_retain) == content_hashes(fresh)
    assert len(plan.data.proxy) == len(proxy) - 1  # what stays may be distilled as well
    assert pair(plan, "data.calibration", "retain").identical == 2


def test_test_images_of_one_side_are_measured_too(tmp_path: Path) -> None:
    own, tests = pictures(tmp_path / "own", *LABELS), pictures(tmp_path / "t", "red", count=4, seed=1)
    plan = make_plan(request("synthetic", evaluation=1), replace(NOTHING, forget_test=tests, evaluation=(own,)))
    assert [(m.name, m.role, len(m.images)) for m in plan.measurements] == [
        ("set 0", "target", 30),
        ("target", "transfer", 4),
    ]
    assert set(plan.measurements[1].roles) == {"forget"}
    kept = pictures(tmp_path / "k", "blue", count=4, seed=2)
    plan = make_plan(request("synthetic", evaluation=1), replace(NOTHING, retain_test=kept, evaluation=(own,)))
    assert set(plan.measurements[1].roles) == {"retain"}


def test_what_is_forgotten_is_measured_without_images_that_stay(tmp_path: Path) -> None:
    plan = make_plan(request(), replace(NOTHING, forget=pictures(tmp_path / "f", "red")))
    (own,) = plan.measurements
    assert (own.role, own.roles) == ("target", ("forget",) * 2)
    assert not seen(plan) & content_hashes(own.images)


def test_what_was_forgotten_before_is_measured_on_images_that_this_erasure_does_not_forget(tmp_path: Path) -> None:
    forget, own = pictures(tmp_path / "f", "red"), pictures(tmp_path / "own", *LABELS, seed=1)
    earlier = together(tmp_path / "e", forget.subset([0, 1, 2]), pictures(tmp_path / "x", "green", seed=2))
    plan = make_plan(
        request(evaluation=1, earlier=1), replace(NOTHING, forget=forget, evaluation=(own,), earlier=(earlier,))
    )
    assert not seen(plan) & content_hashes(*(m.images for m in plan.measurements))
    assert pair(plan, "e", "forget").identical == 3


def test_copies_of_a_file_stay_on_one_side_of_a_split(tmp_path: Path) -> None:
    images = pictures(tmp_path / "f", "red", count=5)
    copies = together(tmp_path / "c", *([images] * 4))
    for share in (0.1, 0.2, 0.5, 0.9):
        rest, part = split(copies, share)
        assert len(rest) + len(part) == 20
        assert min(len(rest), len(part)) >= 4
        assert not content_hashes(rest) & content_hashes(part)
    with pytest.raises(JobFailure, match="holds a single image"):
        make_plan(request(), replace(NOTHING, forget=together(tmp_path / "one", *([images.subset([0])] * 4))))


def test_each_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget, retain = pictures(tmp_path / "f", "red"), pictures(tmp_path / "r", "green", "blue", seed=1)
    own = pictures(tmp_path / "own", *LABELS, seed=2)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return path.read_bytes().hex()

    monkeypatch.setattr("worker.data.images.file_sha256", counted)
    make_plan(request("three_stage", evaluation=1), replace(NOTHING, forget=forget, retain=retain, evaluation=(own,)))
    assert sorted(read) == sorted({*forget.paths, *retain.paths, *own.paths})


SAVED: dict[str, Callable[[Image.Image, Path], None]] = {
    "another format": lambda image, path: image.save(path.with_suffix(".jpg"), quality=75),
    "half the size": lambda image, path: image.resize((32, 32), Image.Resampling.LANCZOS).save(path),
    "as large as models take": lambda image, path: image.resize((224, 224)).save(path.with_suffix(".jpg")),
}


@pytest.mark.parametrize("how", SAVED)
def test_a_copy_in_another_format_or_size_is_told_and_kept(tmp_path: Path, how: str) -> None:
    forget = drawn(tmp_path / "f", [Cell("fish", "sketch")], 12, seed=101)
    others = [cell for cell in cells() if cell.name in ("tree", "car")]
    own = drawn(tmp_path / "own", [*others, Cell("fish", "photo")], 4, seed=102)
    for number in range(5):
        with Image.open(forget.paths[number]) as image:
            SAVED[how](image.convert("RGB"), tmp_path / "own" / "fish" / f"copy-{number}.png")
    own = opened_at(tmp_path / "own")
    target = {"type": "class", "class": "fish", "labels": ["fish", "tree", "car"]}
    plan = make_plan(request(evaluation=1, target=target), replace(NOTHING, forget=forget, evaluation=(own,)))
    found = pair(plan, "set 0", "forget")
    assert (found.identical, found.similar, found.compared) == (0, 5, len(own))
    assert found.example is not None
    assert found.example.startswith("fish/copy-")
    assert len(plan.measurements[0].images) == len(own)
    (said,) = separation_limits(plan.separation)
    assert f"5 of {len(own)} like one of data.forget" in said


def drawn(folder: Path, wanted: list[Cell], count: int, seed: int) -> ImageSet:
    for cell in wanted:
        (folder / cell.name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(drawings(cell, count, seed)):
            picture.save(folder / cell.name / f"{cell.style}-{number}.png")
    return opened_at(folder)


def test_other_drawings_of_the_same_object_do_not_look_alike(tmp_path: Path) -> None:
    some, others = (drawn(tmp_path / str(seed), list(cells()), 6, seed) for seed in (11, 12))
    assert int((lookalikes(thumbnails(some.paths), thumbnails(others.paths)) >= 0).sum()) == 0
    assert lookalikes(thumbnails(some.paths), thumbnails(some.paths)).tolist() == list(range(len(some)))


def test_pictures_of_one_colour_look_like_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    for path in paths:
        Image.new("RGB", (8, 8), (200, 30, 30)).save(path)
    assert lookalikes(thumbnails(paths), thumbnails(paths)).tolist() == [-1, -1]
    assert lookalikes(thumbnails(paths), thumbnails([])).tolist() == [-1, -1]

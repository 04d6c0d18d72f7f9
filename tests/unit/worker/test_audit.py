"""The audit's arithmetic: intervals, changes, the gate, splits."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.crypto.archive_encryption import Sealer
from shared.errors import JobFailure
from shared.ports.object_storage import Storage
from shared.request_rules import reach
from shared.schemas.measures import Value
from shared.schemas.report import Change, EvaluationResult, Role, TargetResult
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.spec import cached_evaluations
from tests.support.tiny import write_pictures
from worker.data.archives import folder_files, image_set
from worker.data.images import ImageSet
from worker.data.splits import content_hashes, split
from worker.evaluation.cache import FeatureCache
from worker.evaluation.case import GIVEN_LIMIT
from worker.evaluation.evaluation import Measurement, change, evaluation_result
from worker.evaluation.findings import found
from worker.evaluation.intervals import wilson
from worker.evaluation.measures import membership, prompts, relearning, representation
from worker.evaluation.plan import make_plan
from worker.evaluation.separation import Opened
from worker.gate import judge


def pictures(folder: Path, classes: tuple[str, ...], count: int, seed: int = 0) -> ImageSet:
    write_pictures(folder, classes, count, seed)
    return image_set(folder.name, f"digest of {folder.name}", folder, folder_files(folder))


def test_wilson_by_hand() -> None:
    # p = 8/10, z = 1.96: centre = (0.8 + 0.19208) / 1.38416 = 0.71674; half = 1.96 * sqrt(0.016 + 0.0096) / 1.38416 = 0.2267
    estimate = wilson(8, 10)
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-3)
    assert estimate.high == pytest.approx(0.9433, abs=1e-3)


def test_wilson_at_the_ends_stays_in_the_unit_interval() -> None:
    none, all_ = wilson(0, 20), wilson(20, 20)
    assert none.low == 0.0 < none.high < 0.2
    assert all_.high == 1.0 > all_.low > 0.8


def test_wilson_refuses_no_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        wilson(0, 0)


def test_change_counts_only_the_chosen() -> None:
    before, after = torch.tensor([True, True, False, True]), torch.tensor([False, True, True, True])
    result = change(before, after, [True, False, True, True])
    assert result is not None
    assert result.before.value == pytest.approx(2 / 3)
    assert result.after.value == pytest.approx(2 / 3)
    assert change(before, after, [False] * 4) is None


def test_gate_takes_the_worst_set_and_fails_what_was_not_measured(tmp_path: Path) -> None:
    images = pictures(tmp_path / "own", ("red", "green"), 2)
    own = Measurement(
        name="own",
        role="target",
        images=images,
        roles=tuple("forget" if n == "red" else "retain" for n in images.names()),
        labels=("red", "green"),
        templates=("{}",),
    )
    names = images.names()
    before = torch.ones(4, dtype=torch.bool)
    after = torch.tensor([n == "green" for n in names])
    result = evaluation_result(own, before, after)
    assert {c.name: (c.role, c.accuracy.after.value) for c in result.classes} == {
        "red": ("forget", 0),
        "green": ("retain", 1),
    }
    limits = Thresholds(max_forget_accuracy=0.05, max_retain_drop=0.0, max_transfer_drop=0.1)
    verdicts = {t.measure: t for t in judge(limits, TargetResult(accuracy=None, synthetic_accuracy=None), (result,))}
    assert verdicts["max_forget_accuracy"].passed
    assert verdicts["max_forget_accuracy"].where == "own"
    assert verdicts["max_retain_drop"].passed
    assert not verdicts["max_transfer_drop"].passed  # there is no other set: unknown is not good enough


class Counted(str):
    """A class name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_classes_are_grouped_without_comparing_each_image_with_each_class(tmp_path: Path) -> None:
    count, each = 300, 4
    labels = tuple(Counted(f"class {number}") for number in range(count))
    images = ImageSet("many", "d", (tmp_path,) * (count * each), tuple(range(count)) * each, labels)
    roles: tuple[Role, ...] = ("forget", *["retain"] * (count * each - 1))  # the first class has both roles
    many = Measurement(name="many", role="target", images=images, roles=roles, labels=labels, templates=("{}",))
    before = torch.ones(count * each, dtype=torch.bool)
    after = torch.arange(count * each) % count != 7
    Counted.compared = 0
    result = evaluation_result(many, before, after)
    assert many.view.truth.tolist() == list(images.labels)
    assert Counted.compared < 10 * count * each
    assert [(c.name, c.role, c.accuracy.after.n) for c in result.classes[:2]] == [
        ("class 0", "forget", 1),
        ("class 1", "retain", 4),
    ]
    assert result.classes[-1].accuracy.after.n == each - 1
    assert {c.name for c in result.classes if c.accuracy.after.value == 0} == {"class 7"}


def test_gate_takes_what_was_forgotten_before_apart(tmp_path: Path) -> None:
    images = pictures(tmp_path / "before", ("red",), 4)
    measured = Measurement(
        name="before", role="earlier", images=images, roles=("forget",) * 4, labels=("red", "green"), templates=("{}",)
    )
    none, half = torch.zeros(4, dtype=torch.bool), torch.tensor([True, True, False, False])
    limits = Thresholds(max_forget_accuracy=1.0, max_earlier_accuracy=0.25)
    nothing = TargetResult(accuracy=None, synthetic_accuracy=None)
    verdicts = {t.measure: t for t in judge(limits, nothing, (evaluation_result(measured, none, half),))}
    assert (verdicts["max_earlier_accuracy"].passed, verdicts["max_earlier_accuracy"].value) == (False, 0.5)
    assert not verdicts["max_forget_accuracy"].passed  # of this request's target nothing was measured
    (again,) = judge(Thresholds(max_earlier_accuracy=0.25), nothing, (evaluation_result(measured, half, none),))
    assert again.passed


def result(name: str, forget: tuple[int, int] | None, retain: tuple[int, int, int] | None = None) -> EvaluationResult:
    """The result of a set: hits after and n of what is forgotten; hits before, after and n of the rest."""
    return EvaluationResult(
        name=name,
        role="target",
        dataset_digest="d",
        labels=("red", "green"),
        templates=("{}",),
        forget=forget and Change(before=wilson(forget[1], forget[1]), after=wilson(*forget)),
        retain=retain and Change(before=wilson(retain[0], retain[2]), after=wilson(retain[1], retain[2])),
        classes=(),
    )


UNSEEN = TargetResult(accuracy=None, synthetic_accuracy=None)


def test_gate_says_what_a_value_rests_on() -> None:
    (verdict,) = judge(Thresholds(max_forget_accuracy=0.01), UNSEEN, (result("own", (1, 40)),))
    assert (verdict.n, verdict.low, verdict.high) == (40, wilson(1, 40).low, wilson(1, 40).high)
    assert verdict.words() == (
        "max_forget_accuracy is 0.0250 (1 of 40; 95 % interval 0.0044 to 0.13), allowed 0.0100 (own)"
    )
    (unknown,) = judge(Thresholds(max_forget_accuracy=0.01), UNSEEN, ())
    assert (unknown.n, unknown.low, unknown.high) == (None, None, None)
    assert unknown.words() == "max_forget_accuracy is 1.0000, allowed 0.0100 (nothing was measured)"


def test_gate_takes_the_less_certain_of_equal_values() -> None:
    sets = (result("few", (0, 5)), result("many", (0, 500)))
    for ordered in (sets, sets[::-1]):
        (verdict,) = judge(Thresholds(max_forget_accuracy=0.05), UNSEEN, ordered)
        assert (verdict.where, verdict.n) == ("few", 5)


@pytest.mark.parametrize(("hits", "n", "passed"), [(0, 15, False), (0, 16, True), (1, 20, False), (2, 40, True)])
def test_gate_bounds_the_upper_end(hits: int, n: int, passed: bool) -> None:
    sets = (result("own", (hits, n)), result("large", (10, 1000)))
    (verdict,) = judge(Thresholds(max_forget_upper_end=0.2), UNSEEN, sets)
    assert (verdict.passed, verdict.where, verdict.value) == (passed, "own", wilson(hits, n).high)


def test_gate_shows_the_interval_of_a_drop_on_the_same_images() -> None:
    drop = found("retain_drop", "own", Value(value=0.1, low=0.02, high=0.18, n=50))
    measured = result("own", None, (45, 40, 50))
    (verdict,) = judge(Thresholds(max_retain_drop=0.02), UNSEEN, (measured,), (drop,))
    assert (verdict.n, verdict.low, verdict.high) == (50, 0.02, 0.18)
    (without,) = judge(Thresholds(max_retain_drop=0.02), UNSEEN, (measured,))
    assert (without.n, without.low) == (50, None)
    assert "n = 50; 95 % interval 0.02 to 0.18" in verdict.words()


def test_the_gateway_knows_how_many_images_the_audit_looks_at() -> None:
    assert reach.PROBED == representation.IMAGES // 2
    assert (reach.RELEARNT, reach.SHOTS) == (relearning.HELD_OUT, relearning.SHOTS)
    assert reach.GIVEN_AT_MOST == GIVEN_LIMIT
    assert {f"{wording}_recall" for wording in reach.WORDINGS} == set(prompts.NAMES)
    needed = {name: reach.NEEDED[name][0] for name in membership.FALSE_ALARMS}
    assert needed == {name: math.ceil(1 / rate) for name, rate in membership.FALSE_ALARMS.items()}


def test_classes_of_a_set_are_counted_in_one_pass(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(5000)]
    labels = tuple(range(5000)) * 4
    images = ImageSet("many", "d", (tmp_path,) * 20_000, labels, tuple(names), (None,) * 20_000)
    measured = Measurement(
        name="many", role="transfer", images=images, roles=("retain",) * 20_000, labels=tuple(names), templates=("{}",)
    )
    before = torch.ones(20_000, dtype=torch.bool)
    started = time.process_time()
    classes = evaluation_result(measured, before, ~before).classes
    truth = measured.view.truth
    assert time.process_time() - started < 10  # a pass for each class took minutes
    assert truth.tolist() == list(labels)
    assert {(c.accuracy.before.n, c.accuracy.before.value, c.accuracy.after.value) for c in classes} == {(4, 1, 0)}
    assert [c.name for c in classes] == names


def test_split_is_disjoint_complete_and_depends_on_content_alone(tmp_path: Path) -> None:
    images = pictures(tmp_path / "a", ("red", "green"), 10)
    rest, part = split(images, 0.2)
    assert (len(rest), len(part)) == (16, 4)
    assert not content_hashes(rest) & content_hashes(part)
    moved = image_set(
        "b", "another", images.paths[0].parents[1], list(reversed(folder_files(images.paths[0].parents[1])))
    )
    assert content_hashes(split(moved, 0.2)[1]) == content_hashes(part)


def test_subsets_have_digests_of_their_own(tmp_path: Path) -> None:
    images = pictures(tmp_path / "a", ("red",), 4)
    assert len({images.digest, images.subset([0, 1]).digest, images.subset([0, 2]).digest}) == 3


def test_cache_tells_models_and_data_sets_apart(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    cache = FeatureCache(storage, tenant="tenants/t/cache", job="tenants/t/jobs/j/cache")
    embeddings = torch.eye(3)
    cache.save("model", "data", {"embeddings": embeddings})
    kept = cache.load("model", "data")
    assert kept is not None
    assert torch.equal(kept["embeddings"], embeddings)
    assert cache.load("other", "data") is None
    assert cache.load("model", "other") is None
    (stored,) = storage.list("tenants")
    assert stored.key.startswith("tenants/t/jobs/j/cache/")  # it goes with the job
    storage.put(stored.key, b"damaged")
    assert cache.load("model", "data") is None


def test_features_of_a_data_set_that_stays_are_filed_under_it(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    cache = FeatureCache(storage, tenant="tenants/t/cache", job="tenants/t/jobs/j/cache")
    cache.outlives_the_job("data", "ds_1", opened())
    cache.save("model", "data", {"embeddings": torch.eye(3)})
    (stored,) = storage.list("tenants")
    assert stored.key.startswith(f"{cached_evaluations('t', 'data')}/")
    assert cache.load("model", "data") is not None
    twin = FeatureCache(storage, tenant="tenants/t/cache", job="tenants/t/jobs/j/cache")
    twin.outlives_the_job("data", "ds_2", opened())  # the same archive, uploaded twice: two keys
    assert twin.load("model", "data") is None
    twin.save("model", "data", {"embeddings": torch.eye(3)})
    assert cache.load("model", "data") is not None


def test_features_are_encrypted_with_the_key_of_their_images(tmp_path: Path) -> None:
    storage, job_key, set_key = Storage(f"file://{tmp_path}"), opened(), opened()

    def cache(job: bytes | None, dataset: bytes) -> FeatureCache:
        made = FeatureCache(storage, tenant="tenants/t/cache", job="tenants/t/jobs/j/cache", job_key=job)
        made.outlives_the_job("lasting", "ds_1", dataset)
        return made

    features = {"embeddings": torch.eye(64)}
    for dataset in ("lasting", "the job's"):
        cache(job_key, set_key).save("model", dataset, features)
        assert cache(job_key, set_key).load("model", dataset) is not None
    assert all(b"embeddings" not in storage.get(stored.key) for stored in storage.list("tenants"))
    assert cache(opened(), set_key).load("model", "the job's") is None
    assert cache(None, set_key).load("model", "the job's") is None
    assert cache(job_key, opened()).load("model", "lasting") is None


def opened() -> bytes:
    """Return a new data key, opened."""
    sealer = Sealer(bytes(32))
    return sealer.opened(sealer.new_key("x"), "x")


def subgroup_request() -> ErasureRequest:
    return ErasureRequest.model_validate(
        {
            "model": {"source": "local-dir:x"},
            "target": {"type": "subgroup", "class": "red", "subgroup": "dark"},
            "method": {"name": "three_stage"},
            "data": {"forget": "f", "retain": "r"},
        }
    )


def test_plan_of_a_subgroup_keeps_test_images_from_the_method(tmp_path: Path) -> None:
    forget = pictures(tmp_path / "f", ("red",), 10)
    retain = pictures(tmp_path / "r", ("red", "green", "blue"), 10, seed=1)
    plan = make_plan(subgroup_request(), Opened(forget, retain, None, None, None, None, ()))
    (own,) = plan.measurements
    assert plan.labels == ("blue", "green", "red")
    assert {role: own.roles.count(role) for role in ("forget", "sibling", "retain")}["forget"] == 2
    assert all(n == "red" for n, role in zip(own.images.names(), own.roles, strict=True) if role != "retain")
    learnt = content_hashes(
        plan.data.forget, plan.data.retain, plan.data.calibration_forget, plan.data.calibration_retain
    )
    assert not learnt & content_hashes(own.images)
    assert len(learnt) + len(content_hashes(own.images)) == 40


def test_plan_drops_test_images_that_are_also_learnt_from(tmp_path: Path) -> None:
    forget = pictures(tmp_path / "f", ("red",), 6)
    retain = pictures(tmp_path / "r", ("green", "blue"), 6, seed=1)
    fresh = pictures(tmp_path / "t", ("red",), 3, seed=2)
    both = image_set("both", "d", tmp_path, [p for p in folder_files(tmp_path) if p.parts[0] in ("f", "t")])
    both = ImageSet("both", "d", both.paths, (0,) * len(both), ("red",))
    plan = make_plan(subgroup_request(), Opened(forget, retain, None, None, both, fresh_retain(tmp_path), ()))
    own = plan.measurements[0]
    assert own.roles.count("forget") == len(fresh)


def chained_request(**entry: object) -> ErasureRequest:
    body = subgroup_request().model_dump(by_alias=True, exclude_unset=True)
    body["data"]["earlier"] = [{"name": "before", "dataset": "e"} | entry]
    return ErasureRequest.model_validate(body)


def chained(folder: Path, earlier: ImageSet) -> Opened:
    forget = pictures(folder / "f", ("red",), 6)
    retain = pictures(folder / "r", ("red", "green", "blue"), 6, seed=1)
    return Opened(forget, retain, None, None, None, None, (), (earlier,))


def test_a_fifth_of_what_was_forgotten_before_is_measured_and_the_rest_learnt_from(tmp_path: Path) -> None:
    earlier = pictures(tmp_path / "e", ("green",), 10, seed=4)
    plan = make_plan(chained_request(), chained(tmp_path, earlier))
    own, before = plan.measurements
    assert (own.role, before.role, before.name, before.roles) == ("target", "earlier", "before", ("forget",) * 2)
    assert plan.data.earlier is not None
    assert len(plan.data.earlier) == 8
    assert not content_hashes(plan.data.earlier) & content_hashes(before.images)


def test_what_was_forgotten_before_may_have_labels_of_its_own(tmp_path: Path) -> None:
    earlier = pictures(tmp_path / "e", ("violet",), 4, seed=4)
    plan = make_plan(chained_request(labels=["violet", "white"]), chained(tmp_path, earlier))
    assert plan.measurements[1].labels == ("violet", "white")
    with pytest.raises(JobFailure, match="'violet', which is not among the labels"):
        make_plan(chained_request(), chained(tmp_path / "again", earlier))


def test_what_was_forgotten_before_cannot_also_stay(tmp_path: Path) -> None:
    opened = chained(tmp_path, pictures(tmp_path / "e", ("green",), 6, seed=4))
    assert opened.retain is not None
    both = replace(opened.retain.subset([0, 9]), name="before")
    with pytest.raises(JobFailure, match=r"'before' in data\.earlier is also one that must stay"):
        make_plan(chained_request(), replace(opened, earlier=(both,)))


def test_a_single_image_of_an_earlier_erasure_cannot_be_learnt_from_and_measured(tmp_path: Path) -> None:
    earlier = pictures(tmp_path / "e", ("green",), 1, seed=4)
    with pytest.raises(JobFailure, match="holds a single image"):
        make_plan(chained_request(), chained(tmp_path, earlier))


def fresh_retain(folder: Path) -> ImageSet:
    return pictures(folder / "rt", ("green", "blue"), 3, seed=3)

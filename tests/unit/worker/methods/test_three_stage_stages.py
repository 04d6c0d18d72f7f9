"""The stages of the three-stage method on small random models: what they change, what they leave, and that they can go on."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.errors import JobFailure
from shared.schemas.methods import ThreeStageParameters
from shared.schemas.request import ErasureRequest, Thresholds
from shared.states import Stage
from tests.support.tiny import write_pictures
from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.data.images import ImageSet
from worker.methods.engine import prepared_data, prompt_bank
from worker.methods.engine.prepared_data import UNKNOWN, Material
from worker.methods.engine.prompt_bank import own_names
from worker.methods.engine.tower import Tower, batch_norms
from worker.methods.engine.vocabulary import COMMON_NAMES
from worker.methods.frame import Erasure, MemoryStore, MethodData, MethodStage
from worker.methods.three_stage import stages
from worker.methods.three_stage.alignment import align, recorded_statistics, running_statistics
from worker.methods.three_stage.losses import statistics_loss
from worker.methods.three_stage.reminding import ROUNDS, class_prior, margin_of

ENOUGH = 1 / 6
"""One image of the six is not worth another round."""
QUICK = {"forget_steps": 3, "remind_steps": 3, "layers": 3, "rank": 2}


class Steps:
    """Remembers every step."""

    def __init__(self) -> None:
        self.seen: list[tuple[Stage, Mapping[str, float]]] = []

    def stage(self, stage: Stage) -> None:
        pass

    def step(
        self, stage: Stage, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        self.seen.append((stage, metrics or {}))

    def metric(self, stage: Stage, name: str) -> list[float]:
        return [metrics[name] for where, metrics in self.seen if where is stage and name in metrics]


def images_in(folder: Path, classes: tuple[str, ...], name: str) -> ImageSet:
    paths = [(path, number) for number, label in enumerate(classes) for path in sorted((folder / label).iterdir())]
    return ImageSet(name, "digest", tuple(p for p, _ in paths), tuple(n for _, n in paths), classes)


@pytest.fixture
def data(tmp_path: Path) -> MethodData:
    """Some red pictures to forget; other red, green and blue ones to keep."""
    forget = write_pictures(tmp_path / "forget", ("red",), count=6, seed=1)
    retain = write_pictures(tmp_path / "retain", ("red", "green", "blue"), count=5, seed=2)
    return MethodData(
        forget=images_in(forget, ("red",), "forget"), retain=images_in(retain, ("red", "green", "blue"), "retain")
    )


def erasure_of(clip: Clip, data: MethodData, seed: int = 0, target: object = None, **parameters: object) -> Erasure:
    request = ErasureRequest.model_validate(
        {
            "model": {"id": "mdl_1"},
            "target": target
            or {"type": "subgroup", "class": "red", "subgroup": "pale", "labels": ["green", "red", "blue"]},
            "method": {"name": "three_stage", "parameters": QUICK | parameters},
            "data": {"forget": "f", "retain": "r"},
            "seed": seed,
        }
    )
    return Erasure.of(
        request,
        clip.frozen_twin(),
        thresholds=Thresholds(max_forget_accuracy=0.05),
        labels=("green", "red", "blue"),
        data=data,
        store=MemoryStore(),
        progress=Steps(),
    )


def run(erasure: Erasure, parts: tuple[MethodStage, ...] | None = None) -> Erasure:
    for part in stages(erasure.parameters) if parts is None else parts:
        erasure.stage = part.stage
        part.run(erasure)
    return erasure


def weights(erasure: Erasure) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in erasure.clip.model.state_dict().items()}


def changed(erasure: Erasure) -> set[str]:
    original = erasure.original.model.state_dict()
    return {name for name, tensor in weights(erasure).items() if not torch.equal(tensor, original[name])}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_only_the_chosen_layers_change(tiny: Clip, data: MethodData) -> None:
    erasure = run(erasure_of(tiny, data))
    assert changed(erasure) == {f"visual.{name}" for name in erasure.notes["layers"]}
    assert len(erasure.notes["layers"]) == 3


def test_every_stage_reports_its_steps(tiny: Clip, data: MethodData) -> None:
    steps = run(erasure_of(tiny, data)).progress
    assert isinstance(steps, Steps)
    assert 1 <= len(steps.metric(Stage.FORGETTING, "loss")) <= 3
    assert len(steps.metric(Stage.REMINDING, "guard_loss")) % 3 == 0
    assert steps.metric(Stage.RESTORING, "alpha")[0] == 1.0


@pytest.mark.parametrize(
    "edit",
    [
        {"directions": "random", "forget_steps": 6},
        {"directions": "relative_fisher", "rank": 32, "forget_steps": 12},  # they hold back: more of them, and longer
    ],
)
def test_forgetting_lowers_the_similarity_with_the_text(tiny: Clip, data: MethodData, edit: dict[str, object]) -> None:
    first = erasure_of(tiny, data)
    before = Material(first, first.parameters)
    taken_for = first.labels[int((before.forget.original @ before.classifier.T).mean(dim=0).argmax())]
    target = {
        "type": "class",
        "class": taken_for,
        "labels": ["green", "red", "blue"],
    }  # so that there is much to forget
    erasure = erasure_of(tiny, data, target=target, learning_rate=1e-2, **edit)
    forgotten = before.classifier[erasure.forget_labels[0]]
    similarity = (before.forget.original @ forgotten).mean()
    run(erasure, stages(erasure.parameters)[:1])
    pixels, _ = before.pixels("forget")
    assert (Tower(erasure.clip.model.visual)(pixels) @ forgotten).mean() < similarity - 0.01


def test_the_guard_gains_ground(tiny: Clip, data: MethodData) -> None:
    options = {
        "learning_rate": 1e-2,
        "layers": 10,
        "rank": 8,
        "remind_steps": 25,
        "distillation": 0.0,
        "contrastive": 0.0,
    }
    erasure = run(erasure_of(tiny, data, forgetting=False, **options))
    losses = erasure.progress.metric(Stage.REMINDING, "guard_loss")[:25]  # type: ignore[attr-defined]  # the first round
    assert losses[-1] < 0.7 * losses[0]


def test_reminding_goes_on_with_a_heavier_guard_as_long_as_that_helps(tiny: Clip, data: MethodData) -> None:
    erasure = run(erasure_of(tiny, data, forgetting=False, learning_rate=5e-3))
    rounds = erasure.notes["reminding"]
    recalls = [entry["recall"] for entry in rounds]
    assert [entry["guard"] for entry in rounds] == [1.0, 2.0, 4.0, 8.0][: len(rounds)]
    assert all(later < earlier for earlier, later in pairwise(recalls[:-1]))
    assert recalls[0] <= ENOUGH or len(rounds) > 1
    assert recalls[-1] <= ENOUGH or len(rounds) == ROUNDS or recalls[-1] >= recalls[-2]


def test_images_of_a_coarse_name_are_guarded_under_their_own(
    monkeypatch: pytest.MonkeyPatch, tiny: Clip, data: MethodData
) -> None:
    names = list(dict.fromkeys(("red", "green", "blue", *COMMON_NAMES)))
    monkeypatch.setattr(prompt_bank, "zero_shot_classifier", lambda _, asked, __: torch.eye(len(names))[: len(asked)])
    subgroup = erasure_of(tiny, data)

    def images_of(**shares: float) -> torch.Tensor:
        return sum(share * torch.eye(len(names))[[names.index(name)]] for name, share in shares.items())  # type: ignore[return-value]

    assert own_names(subgroup, images_of(elephant=0.8, red=0.1)) == ("elephant",)
    assert own_names(subgroup, images_of(elephant=0.80, red=0.79)) == ()  # no coarse name, only a bad likeness
    assert own_names(subgroup, images_of(green=0.8)) == ()  # a label that stays is no name of what goes
    whole = erasure_of(tiny, data, target={"type": "class", "class": "red", "labels": ["green", "red", "blue"]})
    assert own_names(whole, images_of(elephant=0.8)) == ()


def test_the_guards_texts_hold_the_name_that_was_found(
    monkeypatch: pytest.MonkeyPatch, tiny: Clip, data: MethodData
) -> None:
    monkeypatch.setattr(prepared_data, "own_names", lambda *_: ("elephant",))
    erasure = erasure_of(tiny, data)
    targets = Material(erasure, erasure.parameters_as(ThreeStageParameters)).bank.targets
    text = zero_shot_classifier(tiny, ("elephant",), ["a photo of a {}."])[0]
    assert targets.shape[1] == 2
    assert torch.allclose(targets[0, 1], text, atol=1e-5)
    assert erasure.notes["also_guarded"] == ["elephant"]


def test_the_edit_stays_within_the_chosen_directions(tiny: Clip, data: MethodData) -> None:
    erasure = run(erasure_of(tiny, data))
    for name in erasure.notes["layers"]:
        rows = erasure.state[f"directions.{name}"]
        tower, original = erasure.clip.model.visual, erasure.original.model.visual
        change = (tower.get_parameter(name) - original.get_parameter(name)).flatten(1)
        assert change.abs().max() > 0
        assert torch.allclose(change @ rows.T @ rows, change, atol=1e-5)


def test_the_prior_of_a_batch_by_hand(tiny: Clip, data: MethodData) -> None:
    # 12 siblings of 24 and 12 of green and blue alike; 12 forget images count as 6 green and 6 blue. Red is one of three.
    erasure = erasure_of(tiny, data)
    retain = Material(erasure, erasure.parameters).retain
    assert class_prior(erasure, retain, 12).tolist() == pytest.approx([1 / 3] * 3, abs=2e-4)
    assert class_prior(erasure, retain, 0).tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=2e-4)


def test_the_prior_of_what_is_never_drawn_is_not_nothing(tiny: Clip, data: MethodData) -> None:
    erasure = erasure_of(tiny, data)
    retain = Material(erasure, erasure.parameters).retain
    siblings = retain.where(retain.labels == 1)
    assert class_prior(erasure, siblings, 0).tolist() == pytest.approx([1e-4, 1 + 1e-4, 1e-4])


def test_without_a_guard_one_round_is_all(tiny: Clip, data: MethodData) -> None:
    erasure = run(erasure_of(tiny, data, guard=0.0, forgetting=False, learning_rate=1e-6))
    assert len(erasure.notes["reminding"]) == 1


@pytest.mark.parametrize("done", [1, 2])
def test_a_new_process_goes_on_where_the_old_one_stopped(tiny: Clip, data: MethodData, done: int) -> None:
    whole = run(erasure_of(tiny, data))
    first = erasure_of(tiny, data)
    run(first, stages(first.parameters)[:done])
    second = erasure_of(tiny, data)
    second.clip.model.load_state_dict(weights(first))
    second.state = {name: tensor.clone() for name, tensor in first.state.items()}
    run(second, stages(second.parameters)[done:])
    assert same(weights(second), weights(whole))


def test_the_seed_decides_everything(tiny: Clip, data: MethodData) -> None:
    first, again, other = (run(erasure_of(tiny, data, seed=seed)) for seed in (0, 0, 1))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_each_stage_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, tiny: Clip, data: MethodData) -> None:
    monkeypatch.setattr(prepared_data, "own_names", lambda *_: ())  # a random model may call the pictures anything
    erasure = run(erasure_of(tiny, data, forgetting=False, reminding=False, restoring=False))
    assert changed(erasure) == set()
    assert run(erasure_of(tiny, data, reminding=False, restoring=False)).notes.keys() == {"layers", "forgetting"}
    assert run(erasure_of(tiny, data, forgetting=False, restoring=False)).notes.keys() == {"layers", "reminding"}


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "all"},
        {"selection": "fisher"},
        {"adapter": "full", "learning_rate": 1e-4},
        {"ema_decay": 0.0},
        {"depth": 1.0},
        {"directions": "random"},
        {"prior": 0.0},
        {"preset": "faithful"},
    ],
)
def test_every_option_runs(tiny: Clip, data: MethodData, options: dict[str, object]) -> None:
    erasure = run(erasure_of(tiny, data, **options))
    assert changed(erasure)
    assert all(torch.isfinite(tensor).all() for tensor in weights(erasure).values())


def test_alignment_follows_the_kind_of_tower(tiny: Clip, data: MethodData) -> None:
    kind = "batch_norm" if batch_norms(tiny.model.visual) else "tokens"
    assert run(erasure_of(tiny, data, alignment=kind)).notes["alignment"]["mode"] == kind
    other = "tokens" if kind == "batch_norm" else "batch_norm"
    assert "alignment" not in run(erasure_of(tiny, data, alignment=other)).notes


def test_alignment_lowers_its_loss_within_its_bounds(tiny: Clip, data: MethodData) -> None:
    erasure = erasure_of(tiny, data)
    tower = Tower(erasure.original.model.visual)
    norms = batch_norms(tower.visual)
    if not norms:
        pytest.skip("a vision transformer has no BatchNorm")
    stored = [running_statistics(norm) for norm in norms]
    pixels = Material(erasure, erasure.parameters).pixels("retain")[0]

    def loss(images: torch.Tensor) -> float:
        with torch.no_grad(), recorded_statistics(list(norms)) as measured:
            tower(images)
        return statistics_loss(measured, stored).item()

    aligned, _ = align(erasure, tower, pixels, list(norms), stored)
    assert loss(aligned) < loss(pixels)
    assert 0 < (aligned - pixels).abs().max() <= 0.2501


def test_recorded_statistics_by_hand() -> None:
    # Channel 0 holds 0 and 2 (mean 1, deviation 1), channel 1 holds 5 twice (mean 5, deviation 0).
    norm = torch.nn.BatchNorm2d(2).eval()
    with recorded_statistics([norm]) as measured:
        norm(torch.tensor([[[[0.0, 2.0]], [[5.0, 5.0]]]]))
    mean, deviation = measured[0]
    assert mean.tolist() == [1.0, 5.0]
    assert deviation.tolist() == [1.0, 0.0]


def test_a_folder_of_another_name_is_the_only_forgotten_class(tiny: Clip, data: MethodData, tmp_path: Path) -> None:
    (tmp_path / "forget" / "red").rename(tmp_path / "forget" / "uploads")
    forget = images_in(tmp_path / "forget", ("uploads",), "forget")
    erasure = erasure_of(tiny, MethodData(forget=forget, retain=data.retain))
    material = Material(erasure, erasure.parameters)
    assert set(material.forget.labels.tolist()) == {1}


def test_of_several_forgotten_classes_the_folders_must_tell_which(tiny: Clip, data: MethodData, tmp_path: Path) -> None:
    (tmp_path / "forget" / "red").rename(tmp_path / "forget" / "uploads")
    forget = images_in(tmp_path / "forget", ("uploads",), "forget")
    target = {"type": "class", "class": ["red", "green"], "labels": ["green", "red", "blue"]}
    erasure = erasure_of(tiny, MethodData(forget=forget, retain=data.retain), target=target)
    with pytest.raises(JobFailure, match="'uploads'"):
        run(erasure)


def test_retain_images_of_no_label_are_distilled_alone(tiny: Clip, data: MethodData) -> None:
    erasure = erasure_of(tiny, data, target={"type": "class", "class": "red", "labels": ["green", "red"]})
    erasure.labels = ("green", "red")
    material = Material(erasure, erasure.parameters)
    assert set(material.retain.labels.tolist()) == {-1, 0, 1}
    assert changed(run(erasure))


def test_few_images_are_seen_in_more_views(tiny: Clip, data: MethodData) -> None:
    wide, narrow = erasure_of(tiny, data), erasure_of(tiny, data, max_images=8)
    assert len(Material(wide, wide.parameters).forget.labels) == 18
    assert len(Material(narrow, narrow.parameters).forget.labels) == 6
    assert len(Material(narrow, narrow.parameters).retain.labels) == 8


@pytest.mark.parametrize(("images", "seen"), [(5, 25), (6, 24), (24, 24), (30, 30)])
def test_few_calibration_images_of_the_target_are_seen_in_enough_views(
    tiny: Clip, data: MethodData, tmp_path: Path, images: int, seen: int
) -> None:
    folder = write_pictures(tmp_path / "calibration", ("red",), count=images, seed=4)
    known = replace(data, calibration_forget=images_in(folder, ("red",), "calibration"), calibration_retain=data.retain)
    erasure = erasure_of(tiny, known)
    material = Material(erasure, erasure.parameters)
    assert len(material.calibration_forget.labels) == seen
    assert len(material.calibration_retain.labels) == len(known.retain or ())


def test_what_was_forgotten_before_is_held_where_it_is(tiny: Clip, data: MethodData, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "earlier", ("white",), count=8, seed=3)
    earlier = images_in(folder, ("white",), "earlier")
    wild: dict[str, Any] = {
        "directions": "random",
        "remind_steps": 60,
        "learning_rate": 0.004,
        "distillation": 400.0,
        "restoring": False,
    }

    def moved(known: MethodData) -> float:
        """Return 1 - cosine of the earlier images' features and what they were, the mean."""
        erasure = run(erasure_of(tiny, known, **wild))
        seen, was = (encode_images(clip, earlier.pixels(tiny.transform)) for clip in (erasure.clip, erasure.original))
        return 1 - (seen * was).sum(dim=1).mean().item()

    assert moved(replace(data, earlier=earlier)) < 0.8 * moved(data)


def test_unlabelled_images_are_proxies_and_half_as_many_of_what_was_forgotten_before(
    tiny: Clip, data: MethodData, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "earlier", ("white",), count=8, seed=3)
    erasure = erasure_of(tiny, replace(data, earlier=images_in(folder, ("white",), "earlier")))
    drawn = Material(erasure, erasure.parameters).unlabelled(4, erasure.generator(salt=1))
    assert (len(drawn.inputs), len(drawn.original), drawn.labels.tolist()) == (6, 6, [UNKNOWN] * 6)
    alone = erasure_of(tiny, data)
    assert len(Material(alone, alone.parameters).unlabelled(4, alone.generator(salt=1)).labels) == 4


@pytest.mark.parametrize(
    ("target", "chosen", "margin"),
    [
        ({"type": "class", "class": "red", "labels": ["green", "red", "blue"]}, {}, 6.0),
        (None, {}, 2.0),  # siblings answer to the same words
        (None, {"margin": 3.5}, 3.5),
    ],
)
def test_the_margin_is_wide_where_nothing_that_stays_shares_the_words(
    tiny: Clip, data: MethodData, target: object, chosen: dict[str, object], margin: float
) -> None:
    erasure = erasure_of(tiny, data, target=target, **chosen)
    assert margin_of(erasure, erasure.parameters_as(ThreeStageParameters)) == margin

"""The audit catches what only looks like forgetting: each trick passes what it was made for and fails the measure meant for it."""

from collections.abc import Sequence
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.schemas.audit import MeasureThreshold
from shared.schemas.measures import Measure
from tests.support.audits import FORGOTTEN, LABELS, TEMPLATES, Bench, draw
from worker.clip import Clip, encode_texts
from worker.evaluation.suite import run_audit
from worker.evaluation.wordings import wordings
from worker.gate import judge_measure
from worker.methods.engine.last_layers import transform_images

KEPT_TEMPLATES = (
    "a picture of a {}.",
    "{}",
    "an image of a {}.",
    "a drawing of a {}.",
    "the {}",
    "a {}.",
    "a snapshot of a {}.",
)
LIMITS = {
    "forget_recall": 0.2,
    "class_auc": 0.95,
    "worst_prompt_recall": 0.5,
    "original_text_recall": 0.2,
    "retain_drop": 0.05,
    "worst_transfer_drop": 0.1,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def missed(measures: Sequence[Measure]) -> set[str]:
    """Return the measures whose limit is missed, by the gate's own judgement."""
    return {
        result.measure
        for name, limit in LIMITS.items()
        for result in judge_measure(MeasureThreshold(measure=name, max=limit), measures)
        if not result.passed
    }


def value(measures: Sequence[Measure], name: str) -> float:
    return next(m.unlearned.value for m in measures if m.name == name)


def every_name(bench: Bench) -> list[str]:
    return [wording.words for wording in wordings(bench.request(), LABELS)]


def test_an_untouched_model(bench: Bench) -> None:
    result = run_audit(bench.case(bench.edited(lambda clip: None)))
    assert missed(result.measures) == {"forget_recall", "class_auc", "worst_prompt_recall", "original_text_recall"}
    assert result.evidence == "none"
    assert value(result.measures, "parameters_changed") == 0


def test_an_edit_of_the_text_tower_alone(bench: Bench) -> None:
    """A linear map after the text tower turns every wording of the class away, and no other text."""

    def turn_texts(clip: Clip) -> None:
        templates = (*TEMPLATES, *KEPT_TEMPLATES)
        gone = [template.format(name) for name in every_name(bench) for template in templates]
        stay = [template.format(name) for name in LABELS if name != FORGOTTEN for template in templates]
        texts = encode_texts(clip, [*gone, *stay])
        wanted = torch.cat([-texts[: len(gone)], texts[len(gone) :]])
        matrix = torch.linalg.solve(texts.T @ texts + 0.01 * torch.eye(64), texts.T @ wanted + 0.01 * torch.eye(64))
        clip.model.text_projection.copy_(clip.model.text_projection @ matrix)

    result = run_audit(bench.case(bench.edited(turn_texts)))
    assert value(result.measures, "forget_recall") == 0
    assert "original_text_recall" in missed(result.measures)
    assert value(result.measures, "original_text_recall") == 1
    assert result.evidence == "association"


def test_an_edit_that_only_defeats_the_scored_prompt(bench: Bench) -> None:
    def train_texts(clip: Clip) -> None:
        scored = [TEMPLATES[0].format(FORGOTTEN), TEMPLATES[0].format("house")]
        stay = [t.format(FORGOTTEN) for t in KEPT_TEMPLATES] + [
            TEMPLATES[0].format(n) for n in LABELS if n != FORGOTTEN
        ]
        before = encode_texts(clip, [*scored, *stay])
        optimiser = torch.optim.Adam(clip.model.transformer.requires_grad_(True).parameters(), lr=2e-3)
        for _ in range(60):
            with torch.enable_grad():
                texts = encode_texts(clip, [*scored, *stay])
                kept = 1 - (texts[1:] * before[1:]).sum(dim=1).mean()
                loss = kept + 3 * (1 - texts[0] @ before[1])
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()

    result = run_audit(bench.case(bench.edited(train_texts)))
    assert value(result.measures, "forget_recall") == 0
    assert "worst_prompt_recall" in missed(result.measures)
    assert result.evidence == "none"


def test_an_edit_that_only_lowers_confidence(bench: Bench) -> None:
    def cool(clip: Clip) -> None:
        clip.model.logit_scale.fill_(0.0)

    case = bench.case(bench.edited(cool))
    view = case.views[0]
    confidence = view.logits(case.unlearned, case.unlearned).softmax(dim=1).amax(dim=1)[view.forget]
    assert float(confidence.max()) < 0.25
    assert {"forget_recall", "class_auc"} <= missed(run_audit(case).measures)


def test_an_edit_that_lowers_one_logit_hides_the_class_behind_others(bench: Bench) -> None:
    def remove_direction(clip: Clip) -> None:
        weights = bench.case(clip).original.classifier(LABELS, TEMPLATES)
        own = F.normalize(weights[LABELS.index(FORGOTTEN)] - weights.mean(dim=0), dim=0)
        clip.model.visual.proj.sub_(clip.model.visual.proj @ torch.outer(own, own))

    result = run_audit(bench.case(bench.edited(remove_direction)))
    assert value(result.measures, "forget_recall") == 0
    assert "class_auc" in missed(result.measures)
    assert value(result.measures, "probe_recall") > 0.9


def test_a_model_whose_classifier_has_lost_the_label(bench: Bench) -> None:
    """The words of the class read as another label, so that the classifier has no row for it; no image is seen otherwise."""

    def rename(clip: Clip) -> None:
        other = clip.tokenizer(["house"])[0, 1]
        for token in {
            int(t) for name in every_name(bench) for t in clip.tokenizer([name])[0, 1:] if 0 < int(t) < 49406
        }:
            clip.model.token_embedding.weight[token] = clip.model.token_embedding.weight[other]

    result = run_audit(bench.case(bench.edited(rename)))
    assert value(result.measures, "forget_recall") == 0
    assert "original_text_recall" in missed(result.measures)
    assert value(result.measures, "probe_recall") == pytest.approx(1.0, abs=0.05)
    assert result.evidence in ("association", "none")


def test_a_real_edit_passes(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image tower moves images of the class onto those of another, along the discriminant that tells the class."""
    images = draw(tmp_path_factory.mktemp("training"), LABELS, 24, seed=777)

    def move_images(clip: Clip) -> None:
        features = cast(Tensor, clip.model.encode_image(images.pixels(clip.transform))).double()
        truth, mean = torch.tensor(images.labels), features.mean(dim=0)
        own, other = (features[truth == LABELS.index(name)].mean(dim=0) for name in (FORGOTTEN, "mushroom"))
        covariance = (features - mean).T @ (features - mean) / len(features) + 1e-3 * torch.eye(64)
        reader = torch.linalg.solve(covariance, own - mean)
        reader /= reader @ (own - mean)
        move = torch.outer(other - own, reader)
        assert transform_images(clip.model, (torch.eye(64) + move).float(), -(move @ mean).float())

    result = run_audit(bench.case(bench.edited(move_images)))
    assert missed(result.measures) == set()
    assert value(result.measures, "penultimate_probe_recall") > 0.9  # what enters the edited map still holds the class
    assert result.evidence == "association"

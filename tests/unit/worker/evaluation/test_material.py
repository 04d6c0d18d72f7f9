"""What measures are taken on: features, texts, wordings, splits of the images; and that no measure is left out unsaid."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from shared.ports.object_storage import Storage
from shared.schemas.measure_catalogue import CATALOGUE, SAMPLES, TEXTS, WEIGHTS
from shared.schemas.measures import Value
from tests.support.audits import FORGOTTEN, LABELS, TEMPLATES, Bench
from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.evaluation.cache import FeatureCache
from worker.evaluation.features import features_of, features_of_pixels
from worker.evaluation.measures import relearning
from worker.evaluation.subject import Subject
from worker.evaluation.suite import run_audit
from worker.evaluation.wordings import DISTRACTORS, Wording, misspellings, templates_for, wordings
from worker.methods.engine import prompt_bank, vocabulary


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), count=4)


@torch.no_grad()
def test_features_are_the_towers_own(tiny: Clip) -> None:
    pixels = torch.randn(5, 3, tiny.image_size, tiny.image_size, generator=torch.Generator().manual_seed(0))
    features = features_of_pixels(tiny, pixels)
    assert torch.allclose(features.embeddings, encode_images(tiny, pixels), atol=1e-6)
    assert features.penultimate is not None
    assert len(features.penultimate) == 5
    projection = getattr(tiny.model.visual, "proj", None)
    if projection is not None:  # and it is back where it was
        assert torch.allclose(F.normalize(features.penultimate @ projection, dim=-1), features.embeddings, atol=1e-6)


def test_features_come_from_the_cache_the_second_time(bench: Bench, tmp_path: Path) -> None:
    cache, seen = (
        FeatureCache(Storage(f"file://{tmp_path}"), tenant="tenants/t/cache", job="tenants/t/jobs/j/cache"),
        [],
    )
    first = features_of(bench.original, bench.given, cache, lambda done, total: seen.append((done, total)))
    second = features_of(bench.original, bench.given, cache, lambda *_: pytest.fail("computed again"))
    assert seen == [(4, 4)]
    assert torch.equal(first.embeddings, second.embeddings)
    assert second.penultimate is not None


def test_a_subject_reads_texts_as_the_classifier_does(tiny: Clip) -> None:
    subject = Subject(tiny, {})
    templates = ("a {}.", "the {}")
    subject.texts(["dog"], templates[:1])  # known already, and in another batch
    own = subject.classifier(["cat", "dog"], templates)
    assert torch.allclose(own, zero_shot_classifier(tiny, ["cat", "dog"], templates), atol=1e-6)


def test_no_method_is_given_the_audits_templates() -> None:
    tried = set(templates_for(LABELS))
    assert len(tried) == 12
    assert not tried & {*vocabulary.TEMPLATES, *prompt_bank.TEMPLATES, *TEMPLATES}
    assert len(templates_for(tuple(map(str, range(1000))))) == 2


def test_wordings_of_a_class() -> None:
    request = Bench.request(audit={"names": ["gamp"]})
    found = wordings(request, LABELS)
    words = {wording.words: wording.kind for wording in found}
    assert found[0] == Wording("template", FORGOTTEN, "umbrella")
    assert {
        "parasol": "synonym",
        "gamp": "synonym",
        "umbrellas": "plural",
        "Regenschirm": "translation",
    }.items() <= words.items()
    assert words["umbrlla"] == "misspelling"
    assert len({word.lower() for word in words}) == len(found)
    assert not set(DISTRACTORS) & set(words)


def test_a_wording_that_is_a_label_is_not_tried() -> None:
    labels = (*LABELS, "parasol", "Umbrellas")
    words = {
        wording.words for wording in wordings(Bench.request(target=Bench.target(labels=labels, synonyms=[])), labels)
    }
    assert not words & {"parasol", "parasols", "umbrellas"}
    assert "brolly" in words


@pytest.mark.parametrize("name", ["a", "ox", "cat", "ice cream", "oo"])
def test_misspellings_are_words_and_wrong(name: str) -> None:
    assert all(word and word != name and word == word.strip() for word in misspellings(name))


@pytest.mark.parametrize(("level", "with_reference"), [("standard", False), ("standard", True), ("thorough", True)])
def test_every_measure_is_taken_or_its_lack_is_said(
    bench: Bench, level: str, with_reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STEPS", "FORGET_BATCH", "RETAIN_BATCH"):
        monkeypatch.setattr(relearning, name, 4)
    reference = bench.original if with_reference else None
    result = run_audit(bench.case(bench.original, reference=reference, audit={"level": level}))
    taken, missing = {m.name for m in result.measures}, {m.name for m in result.not_measured}
    assert taken | missing == set(CATALOGUE)
    assert not taken & missing
    assert len(missing) == len(result.not_measured)
    same = [measure for measure in result.measures if measure.reference and measure.original]
    assert bool(same) == with_reference
    assert all(measure.unlearned == measure.original == measure.reference for measure in same)


OTHER_TARGETS = {
    "several classes": {"target": Bench.target(**{"class": ["umbrella", "cat"], "synonyms": {"cat": ["kitten"]}})},
    "subgroup": {
        "target": {"type": "subgroup", "class": FORGOTTEN, "subgroup": "photo", "labels": LABELS},
        "method": {"name": "three_stage"},
        "data": {"forget": "f", "retain": "r"},
    },
}


@pytest.mark.parametrize("changes", OTHER_TARGETS.values(), ids=OTHER_TARGETS)
def test_other_targets_are_examined_as_well(bench: Bench, changes: dict[str, Any]) -> None:
    result = run_audit(bench.case(bench.original, **changes))
    assert {m.name for m in result.measures} | {m.name for m in result.not_measured} == set(CATALOGUE)
    assert result.evidence == "none"


def test_from_samples_alone_only_what_they_can_say(bench: Bench) -> None:
    case = bench.case(bench.original)
    samples = replace(case.views[0], name=SAMPLES, role="samples")
    models = [Subject(s.clip, {SAMPLES: s.features["objects"]}) for s in (case.original, case.unlearned)]
    case = replace(case, views=(samples,), original=models[0], unlearned=models[1], given=None, own_images=None)
    result = run_audit(case)
    assert {m.where for m in result.measures} == {SAMPLES, TEXTS, WEIGHTS}
    reasons = {m.name: m.reason for m in result.not_measured}
    assert {m.name for m in result.measures} | set(reasons) == set(CATALOGUE)
    assert "real images" in reasons["probe_recall"]
    assert "evaluation set" in reasons["transfer_ratio"]
    assert result.evidence is None


def test_relearning_is_measured_on_images_that_were_not_learnt_from(bench: Bench) -> None:
    case = bench.case(bench.original)
    lesson = relearning._chosen(case, case.views[0], bench.objects).seen_by(bench.original)
    assert lesson.labels[0] == FORGOTTEN
    assert len(lesson.tuning.truth) == len(lesson.held_out.truth) == 4
    assert not any(torch.equal(a, b) for a in lesson.tuning.pixels for b in lesson.held_out.pixels)
    assert FORGOTTEN not in {lesson.labels[int(label)] for label in lesson.retained.truth}


@pytest.mark.parametrize(
    ("taken", "goal", "said"),
    [
        (4, 8, None),
        (21, 8, "within 20 steps: model"),
        (21, 21, "within 20 steps: model and reference"),
        (8, 0, "from the start"),
    ],
)
def test_a_ratio_of_steps_says_where_it_is_a_bound(taken: float, goal: float, said: str | None) -> None:
    found = relearning._bounds(Value(value=taken), Value(value=goal))
    assert found is None if said is None else said in str(found)


def test_relearning_teaches(bench: Bench) -> None:
    """A class that hides behind one direction of the embedding is found again within twenty steps; the model itself stays."""

    def remove_direction(clip: Clip) -> None:
        weights = zero_shot_classifier(clip, LABELS, TEMPLATES)
        own = F.normalize(weights[LABELS.index(FORGOTTEN)] - weights.mean(dim=0), dim=0)
        clip.model.visual.proj.sub_(clip.model.visual.proj @ torch.outer(own, own))

    case = bench.case(bench.edited(remove_direction))
    lesson = relearning._chosen(case, case.views[0], bench.objects).seen_by(bench.original)
    before = {name: tensor.clone() for name, tensor in case.unlearned.clip.model.state_dict().items()}
    trace = relearning.relearn(case.unlearned, lesson, 4)
    assert trace.steps == [0, 4, 8, 12, 16, 20]
    assert trace.points()[0].y == 0
    assert trace.highest().value > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in case.unlearned.clip.model.state_dict().items())

"""What is called the worst is the worst: nothing that counts lies above it, and unknown words are told apart."""

import pytest
import torch

from shared.schemas.measures import Measure
from tests.support.audits import Bench
from worker.clip import Clip
from worker.evaluation.measures import prompts
from worker.evaluation.views import View


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), count=8)


def nothing(_: Clip) -> None:
    """Leave the model as it is."""


def measured(bench: Bench, **changes: object) -> dict[str, Measure]:
    case = bench.case(bench.edited(nothing), **changes)
    return {m.name: m for m in prompts.measure(case) if isinstance(m, Measure) and m.where == "objects"}


def test_nothing_that_counts_lies_above_the_worst(bench: Bench) -> None:
    found = measured(bench)
    assert {"template_recall", "misspelling_recall", "worst_prompt_recall"} <= set(found)
    for model in ("original", "unlearned"):
        values = {name: getattr(m, model).value for name, m in found.items() if m.counts}
        assert max(values.values()) == values["worst_prompt_recall"]


def test_the_worst_is_not_below_what_the_requests_own_templates_recognise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = bench.case(bench.edited(nothing))
    everything = torch.ones(len(bench.objects), dtype=torch.bool)
    monkeypatch.setattr(View, "hits", lambda *_: everything)
    monkeypatch.setattr(
        prompts, "_hits", lambda _, view, trial: torch.zeros(int(view.forget.sum()), len(trial.wordings), 2)
    )
    monkeypatch.setattr(prompts, "templates_for", lambda _: ("a {}", "the {}"))
    found = {m.name: m for m in prompts.measure(case) if isinstance(m, Measure) and m.where == "objects"}
    assert found["worst_prompt_recall"].unlearned.value == 1.0
    assert found["worst_prompt_recall"].detail == "the request's own templates"


def test_a_kind_of_which_the_original_knows_no_word_does_not_count(bench: Bench) -> None:
    target = Bench.target(synonyms=["zzyzx qqv"])
    found = measured(bench, target=target, audit={"names": []})
    known = {name: m.counts for name, m in found.items()}
    assert known["template_recall"]
    assert known["worst_prompt_recall"]
    unknown = [m for m in found.values() if m.original is not None and m.original.value < prompts.KNOWN]
    assert all(not m.counts for m in unknown if m.name != "template_recall")
    assert all(m.counts for m in found.values() if m not in unknown)

"""`auto`: what it tries in which order, when it goes on, what it tells, and that another attempt mixes nothing up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from api.demo.drawings import cells
from shared.errors import JobFailure
from shared.ports.object_storage import Storage
from shared.schemas.report import Report
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.result import PipelineResult
from shared.schemas.spec import JobSpec
from shared.settings import Settings
from shared.states import Stage
from tests.support import demo, requests
from worker import methods
from worker.candidates import Named
from worker.methods import null_space
from worker.methods.auto import candidates
from worker.methods.frame import Erasure, MethodStage
from worker.pipeline import run_pipeline
from worker.resolve import resolve_paths

torch.set_num_threads(1)

CLIP = Path("/models/clip")


class Recorder:
    """Remembers stages and metrics, and can end the process's work at the n-th time of one stage."""

    def __init__(self, stop_at: Stage | None = None, time: int = 1) -> None:
        self.stages: list[Stage] = []
        self.metrics: set[str] = set()
        self._stop_at, self._left = stop_at, time

    def stage(self, stage: Stage) -> None:
        if stage is self._stop_at:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
        self.stages.append(stage)

    def step(
        self, stage: Stage, step: int, total: int | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        self.metrics |= set(metrics or {})


class Jobs:
    """Jobs of `auto` in the demo's CLIP, on drawings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage(f"file://{folder}/objects")
        gone = [cell for cell in cells() if demo.is_gone(cell, demo.CLASS)]
        kept = [cell for cell in cells() if cell not in gone]
        demo.draw(folder / "own", cells(), 2, 301)
        demo.draw(folder / "forget", gone, 6, 302)
        demo.draw(folder / "retain", kept, 2, 303)

    def spec(self, job: str, parameters: Mapping[str, Any], *, images: bool = False, **changes: Any) -> JobSpec:
        data: dict[str, Any] = {"evaluation": [{"name": "own", "dataset": str(self.folder / "own")}]}
        if images:
            data |= {"forget": str(self.folder / "forget"), "retain": str(self.folder / "retain")}
        body = {
            "model": {"source": f"local-dir:{demo.MODEL}"},
            "target": demo.CLASS,
            "method": {"name": "auto", "parameters": parameters},
            "data": data,
        }
        request = ErasureRequest.model_validate(body | changes)
        spec = resolve_paths(request, Settings(_env_file=None))  # type: ignore[call-arg]
        return spec.model_copy(update={"job_id": job})

    def run(self, spec: JobSpec, recorder: Recorder | None = None) -> PipelineResult:
        scratch = self.folder / f"scratch-{len(list(self.folder.glob('scratch-*')))}"
        scratch.mkdir()
        return run_pipeline(spec, self.storage, recorder or Recorder(), scratch, "cpu")

    def report(self, spec: JobSpec) -> Report:
        return Report.model_validate_json(self.storage.get(f"{spec.attempt_prefix}/report.json"))

    def weights(self, result: PipelineResult) -> dict[str, torch.Tensor]:
        (key,) = (a.key for a in result.artifacts if a.name.endswith(".safetensors"))
        return load_file(self.storage.download(key, self.folder / "fetched" / key.replace("/", "-")))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("auto"))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `pbu` do nothing at all, `slug` give up, and remember which methods ran."""
    ran: list[str] = []
    real = methods.stages_of

    def stages_of(request: ErasureRequest) -> tuple[MethodStage, ...]:
        ran.append(request.method.name)

        def nothing(erasure: Erasure) -> None:
            erasure.notes["did"] = "nothing"

        def give_up(erasure: Erasure) -> None:
            raise JobFailure("method_failed", "It found no way.")

        stages = {
            "pbu": (MethodStage(Stage.FORGETTING, nothing),),
            "slug": (MethodStage(Stage.FORGETTING, give_up),),
        }
        return stages[request.method.name] if request.method.name in stages else real(request)

    monkeypatch.setattr("worker.pipeline.stages_of", stages_of)
    return ran


def order(request: ErasureRequest, thresholds: Thresholds | None = None) -> list[str]:
    parameters = request.method.parsed()
    return [m.name for m in candidates(request, parameters, thresholds or Thresholds())]  # type: ignore[arg-type]


def asked(*given: str, **parameters: object) -> ErasureRequest:
    method = {"name": "auto", "parameters": parameters}
    return requests.names_only(CLIP, method=method, data=dict.fromkeys(given, "ds"))


def test_the_order_follows_what_is_given() -> None:
    assert order(asked()) == ["synthetic", "null_space", "synthetic"]
    assert order(asked("forget"))[0] == "delete"
    assert order(asked("forget", "retain"))[0] == "three_stage"
    assert order(asked("retain")) == order(asked())
    subgroup = requests.subgroup(CLIP, forget="f", retain="r", method={"name": "auto"})
    assert order(subgroup)[0] == "three_stage"
    assert not {"synthetic", "null_space"} & set(order(subgroup))


def test_a_threshold_on_samples_leaves_what_makes_samples() -> None:
    limits = Thresholds(max_synthetic_accuracy=0.05)
    assert set(order(asked("forget", "retain"), limits)) == {"synthetic"}
    assert set(order(asked(methods=["null_space"]), limits)) == {"synthetic"}


def test_the_request_may_say_what_to_try_and_how_much() -> None:
    assert order(asked("forget", methods=["pbu", "delete"])) == ["pbu", "delete"]
    assert len(order(asked("forget", "retain", most=2))) == 2


def test_the_first_that_passes_is_published_and_the_rest_is_not_tried(jobs: Jobs, broken: list[str]) -> None:
    spec = jobs.spec("first", {"methods": ["null_space", "synthetic"]})
    result = jobs.run(spec)
    method = jobs.report(spec).method
    assert result.verdict == "passed"
    assert broken == ["null_space"]
    assert (method["name"], method["chosen"], method["looks"]) == ("auto", "null_space", 1)
    assert [row["outcome"] for row in method["tried"]] == ["passed"]
    assert method["tried"][0]["measured"][0]["measure"] == "max_forget_accuracy"
    assert not any("several" in words for words in jobs.report(spec).limits)


def test_what_misses_on_calibration_images_never_sees_the_test_images(jobs: Jobs, broken: list[str]) -> None:
    spec = jobs.spec("screened", {"methods": ["pbu", "slug", "null_space"]}, images=True)
    recorder = Recorder()
    assert jobs.run(spec, recorder).verdict == "passed"
    report = jobs.report(spec)
    rows = report.method["tried"]
    assert [(row["method"], row["outcome"], row["judged_on"]) for row in rows] == [
        ("pbu", "missed", "calibration images"),
        ("slug", "failed", None),
        ("null_space", "passed", "test images"),
    ]
    assert rows[1]["reason"] == "It found no way."
    assert report.method["looks"] == recorder.stages.count(Stage.AUDITING) == 1
    assert "did" not in report.method  # a note of another candidate


def test_several_looks_at_the_test_images_are_told(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = null_space.project, []

    def second_time(erasure: Erasure) -> None:
        calls.append(erasure)
        if len(calls) > 1:
            real(erasure)

    monkeypatch.setattr(null_space, "project", second_time)
    spec = jobs.spec("looks", {"methods": ["null_space", "null_space"]})  # names alone: nothing to screen on
    assert jobs.run(spec).verdict == "passed"
    report = jobs.report(spec)
    assert [(row["outcome"], row["judged_on"]) for row in report.method["tried"]] == [
        ("missed", "test images"),
        ("passed", "test images"),
    ]
    assert report.method["looks"] == 2
    assert any("several" in words for words in report.limits)


def test_where_nothing_passes_nothing_is_published(jobs: Jobs, broken: list[str]) -> None:
    spec = jobs.spec("missed", {"methods": ["pbu", "slug"]}, images=True)
    result = jobs.run(spec)
    assert result.verdict == "failed"
    assert result.error is not None
    assert result.error.code == "thresholds_not_met"
    assert not any(a.name.startswith("model/") for a in result.artifacts)
    method = jobs.report(spec).method
    assert method["chosen"] == "pbu"
    assert [row["outcome"] for row in method["tried"]] == ["missed", "failed"]
    assert method["tried"][0]["judged_on"] == "test images"  # the gate has the last word


def test_where_nothing_can_be_run_the_job_says_so(jobs: Jobs, broken: list[str]) -> None:
    with pytest.raises(JobFailure, match="slug: It found no way"):
        jobs.run(jobs.spec("none", {"methods": ["slug"]}, images=True))


def test_metrics_carry_the_methods_name() -> None:
    recorder = Recorder()
    Named(recorder, "delete").step(Stage.FORGETTING, 1, 2, {"loss": 0.5})
    assert recorder.metrics == {"delete.loss"}


@pytest.mark.parametrize(("stage", "time"), [(Stage.FORGETTING, 2), (Stage.AUDITING, 1), (Stage.PUBLISHING, 1)])
def test_another_attempt_goes_on_with_the_candidate_that_was_interrupted(
    jobs: Jobs, broken: list[str], stage: Stage, time: int
) -> None:
    spec = jobs.spec(f"again-{stage}", {"methods": ["pbu", "null_space"]}, images=True)
    with pytest.raises(KeyboardInterrupt):
        jobs.run(spec, Recorder(stop_at=stage, time=time))
    broken.clear()
    again, recorder = spec.model_copy(update={"attempt": 2}), Recorder()
    result = jobs.run(again, recorder)
    assert broken == ["null_space"]  # what became of pbu is known
    assert recorder.stages.count(Stage.FORGETTING) == (1 if stage is Stage.FORGETTING else 0)
    report = jobs.report(again)
    assert [row["method"] for row in report.method["tried"]] == ["pbu", "null_space"]
    assert [s.stage for s in report.stages].count(Stage.FORGETTING) == (1 if stage is Stage.FORGETTING else 2)
    alone = jobs.run(jobs.spec(f"alone-{stage}", {"methods": ["null_space"]}))
    weights, expected = jobs.weights(result), jobs.weights(alone)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_subgroup_is_judged_on_its_own_drawings(jobs: Jobs, tmp_path: Path) -> None:
    gone = [cell for cell in cells() if demo.is_gone(cell, demo.SUBGROUP)]
    kept = [cell for cell in cells() if cell not in gone]
    demo.draw(tmp_path / "forget", gone, 30, 401)
    demo.draw(tmp_path / "retain", [cell for cell in kept if cell.name == demo.CELL.name], 10, 402)
    demo.draw(tmp_path / "retain", [cell for cell in kept if cell.name in ("boat", "car")], 5, 403)
    data = {"forget": str(tmp_path / "forget"), "retain": str(tmp_path / "retain")}
    limits = {"max_forget_accuracy": 0.5, "max_retain_drop": 0.2}
    spec = jobs.spec("part", {"methods": ["delete"]}, target=demo.SUBGROUP, data=data, thresholds=limits)
    jobs.run(spec)
    report = jobs.report(spec)
    assert report.target.siblings is not None
    assert report.method["chosen"] == "delete"
    assert {row["judged_on"] for row in report.method["tried"]} == {"test images"}

"""The pipeline: load, measure, forget, measure again, judge, publish. It knows no database and no queue."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from shared.archives import file_sha256
from shared.errors import JobFailure
from shared.schemas.job import JobError
from shared.schemas.report import Change, Report, TargetResult
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.schemas.spec import DataSource, JobSpec
from shared.states import Stage
from shared.storage import Storage
from worker.audit.cache import EvaluationCache
from worker.audit.evaluation import Hits, change, evaluation_result, hits_of
from worker.audit.intervals import wilson
from worker.audit.plan import Opened, Plan, make_plan
from worker.checkpoints import Checkpoints, StoredTensors
from worker.clip import Clip, encode_images, zero_shot_classifier
from worker.clip.checkpoint import load_clip, save_clip
from worker.data.archives import open_images
from worker.data.images import ImageSet
from worker.gate import judge
from worker.meter import Meter
from worker.methods import stages_of
from worker.methods.frame import Erasure
from worker.ports import Progress
from worker.recording import Recording
from worker.report import make_report
from worker.report_page import render

THRESHOLDS_NOT_MET = "thresholds_not_met"


def run_pipeline(spec: JobSpec, storage: Storage, progress: Progress, scratch: Path, device: str) -> PipelineResult:
    """Run one job to its verdict; everything it leaves is below `spec.attempt_prefix` in the storage.

    Args:
        spec: the job, every reference resolved.
        storage: where data sets, models, checkpoints and results are.
        progress: is told of stages and steps.
        scratch: an empty folder, deleted by the caller.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        JobFailure: the job cannot reach a verdict, and trying again would not help.
    """
    return _Run(spec, storage, progress, scratch, chosen_device(device)).run()


def chosen_device(device: str) -> torch.device:
    """Return the device that a setting names; `auto` takes a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


class _Run:
    """One run of the pipeline."""

    def __init__(
        self, spec: JobSpec, storage: Storage, progress: Progress, scratch: Path, device: torch.device
    ) -> None:
        self._spec, self._storage, self._progress, self._scratch = spec, storage, Recording(progress), scratch
        self._device = device
        self._meter = Meter(self._progress, device)
        self._cache = EvaluationCache(storage, spec.cache_prefix)

    def run(self) -> PipelineResult:
        torch.manual_seed(self._spec.request.seed)
        with self._meter.stage(Stage.PREPARING):
            original = load_clip(
                self._spec.model.reference, scratch=self._scratch, storage=self._storage, device=self._device
            )
            plan = make_plan(self._spec.request, self._open())
            before = self._measure(original, plan, Stage.PREPARING)
        erasure = self._erase(original, plan)
        with self._meter.stage(Stage.AUDITING):
            folder = self._scratch / "result"
            digest = save_clip(erasure.clip, folder)
            after = self._measure(replace(erasure.clip, digest=digest), plan, Stage.AUDITING)
            target = self._target(erasure, plan, before, after)
        with self._meter.stage(Stage.PUBLISHING):
            report = self._report(erasure, plan, before, after, target, digest)
            return self._publish(report, folder)

    def _open(self) -> Opened:
        """Open every data set, each one once, however often the request names it."""
        opened: dict[str, ImageSet] = {}

        def images(source: DataSource | None) -> ImageSet | None:
            if source is None:
                return None
            if source.uri not in opened:
                scratch = self._scratch / f"data-{len(opened)}"
                opened[source.uri] = open_images(source, scratch=scratch, storage=self._storage)
            return replace(opened[source.uri], name=source.name)

        data = self._spec.data
        return Opened(
            forget=images(data.forget),
            retain=images(data.retain),
            calibration=images(data.calibration),
            proxy=images(data.proxy),
            forget_test=images(data.forget_test),
            retain_test=images(data.retain_test),
            evaluation=tuple(i for source in data.evaluation if (i := images(source)) is not None),
        )

    def _measure(self, clip: Clip, plan: Plan, stage: Stage) -> list[Hits]:
        """Return which images of each measurement the model recognises."""
        total = sum(len(m.images) for m in plan.measurements)
        results: list[Hits] = []
        for measurement in plan.measurements:
            report = partial(self._report_images, stage, sum(map(len, results)), total)
            results.append(hits_of(clip, measurement, self._cache, report))
        return results

    def _report_images(self, stage: Stage, before: int, total: int, done: int, _: int) -> None:
        self._progress.step(stage, before + done, total)

    def _erase(self, original: Clip, plan: Plan) -> Erasure:
        """Run the method's stages, from the last checkpoint on if an earlier attempt left one."""
        request = self._spec.request
        erasure = Erasure(
            clip=original,
            original=original.frozen_twin(),
            request=request,
            parameters=request.method.parsed(),
            thresholds=self._spec.thresholds,
            labels=plan.labels,
            data=plan.data,
            store=StoredTensors(self._storage, self._spec.cache_prefix),
            progress=self._progress,
            seed=request.seed,
        )
        checkpoints = Checkpoints(self._storage, self._spec.checkpoint_prefix)
        restored = checkpoints.restore(erasure)
        self._meter.stages += restored.stages
        self._progress.steps |= restored.steps
        for number, stage in enumerate(stages_of(request)):
            if number >= restored.done:
                erasure.stage = stage.stage
                with self._meter.stage(stage.stage):
                    stage.run(erasure)
                if not all(bool(torch.isfinite(p).all()) for p in erasure.clip.model.parameters()):
                    raise JobFailure("method_failed", f"The weights are no longer finite after {stage.stage}.")
                costs = [s for s in self._meter.stages if s.stage is not Stage.PREPARING]
                checkpoints.save(number, erasure, costs, self._progress.steps)
        return erasure

    def _target(self, erasure: Erasure, plan: Plan, before: list[Hits], after: list[Hits]) -> TargetResult:
        accuracy = siblings = None
        for measurement, old, new in zip(plan.measurements, before, after, strict=True):
            if measurement.role == "target":
                accuracy = change(old, new, [role == "forget" for role in measurement.roles])
                siblings = change(old, new, [role == "sibling" for role in measurement.roles])
        return TargetResult(accuracy=accuracy, synthetic_accuracy=_on_held_out_samples(erasure), siblings=siblings)

    def _report(
        self, erasure: Erasure, plan: Plan, before: list[Hits], after: list[Hits], target: TargetResult, digest: str
    ) -> Report:
        evaluations = tuple(
            evaluation_result(measurement, old, new)
            for measurement, old, new in zip(plan.measurements, before, after, strict=True)
        )
        return make_report(
            self._spec,
            erasure,
            target=target,
            evaluations=evaluations,
            thresholds=judge(self._spec.thresholds, target, evaluations),
            digest_after=digest,
            stages=self._meter.stages,
            curves=self._progress.curves(),
        )

    def _publish(self, report: Report, folder: Path) -> PipelineResult:
        """Upload weights and report, the latter also as a page; weights of a failed run go into quarantine."""
        passed = report.verdict == "passed"
        place = "model" if passed else "quarantine"
        reports = {"report.json": report.model_dump_json(indent=2), "report.html": render(report)}
        for name, content in reports.items():
            (self._scratch / name).write_text(content, encoding="utf-8")
        files = {name: self._scratch / name for name in reports} | {f"{place}/{f.name}": f for f in folder.iterdir()}
        artifacts = []
        for name, file in sorted(files.items()):
            key = f"{self._spec.attempt_prefix}/{name}"
            size = self._storage.put(key, file)
            quarantined = name.startswith("quarantine/")
            artifacts.append(
                ArtifactRecord(name=name, key=key, sha256=file_sha256(file), size_bytes=size, quarantined=quarantined)
            )
        return PipelineResult(
            verdict=report.verdict,
            error=None if passed else _missed(report),
            artifacts=tuple(artifacts),
            architecture=report.model_after.architecture,
            model_digest=report.model_after.digest,
        )


@torch.no_grad()
def _on_held_out_samples(erasure: Erasure) -> Change | None:
    """Return the accuracy on held-out synthetic samples of what is forgotten, if the method left any."""
    samples, labels = erasure.state.get("held_out_samples"), erasure.state.get("held_out_labels")
    if samples is None or labels is None:
        return None
    mask = torch.isin(labels.cpu(), torch.tensor(erasure.forget_labels))
    if not bool(mask.any()):
        return None

    def hits(clip: Clip) -> torch.Tensor:
        weights = zero_shot_classifier(clip, erasure.labels, erasure.request.target.templates)
        embeddings = torch.cat([encode_images(clip, part.to(clip.device)) for part in samples[mask].float().split(64)])
        return (embeddings @ weights.T).argmax(dim=1).cpu() == labels[mask].cpu()

    old, new = hits(erasure.original), hits(erasure.clip)
    return Change(before=wilson(int(old.sum()), len(old)), after=wilson(int(new.sum()), len(new)))


def _missed(report: Report) -> JobError:
    missed = [t for t in report.thresholds if not t.passed]
    words = "; ".join(f"{t.measure} is {t.value:.4f}, allowed {t.limit:.4f} ({t.where})" for t in missed)
    detail = {"missed": [t.model_dump(mode="json") for t in missed]}
    return JobError(code=THRESHOLDS_NOT_MET, message=f"The result misses its thresholds: {words}.", detail=detail)

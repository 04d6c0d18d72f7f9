"""The pipeline: load, measure, forget, measure again, judge, publish. It knows no database and
no queue.
"""

import hashlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from shared.errors import JobFailure
from shared.files.image_archives import file_sha256
from shared.ports.object_storage import Storage
from shared.request_rules.method_data import SAME_MODEL
from shared.schemas.job import JobError
from shared.schemas.report import Change, Report, Role, TargetResult
from shared.schemas.request import ErasureRequest
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.schemas.spec import DataSource, JobSpec
from shared.states import Stage
from worker.candidates import Chooser, Examine
from worker.checkpoints import Checkpoints, StoredTensors
from worker.clip import Clip
from worker.clip.checkpoint import load_clip, save_clip
from worker.data.archives import open_images
from worker.data.images import ImageSet
from worker.evaluation.cache import FeatureCache
from worker.evaluation.case import Examiner
from worker.evaluation.evaluation import change, evaluation_result
from worker.evaluation.features import Features
from worker.evaluation.labels import check_told_apart
from worker.evaluation.plan import Plan, make_plan
from worker.evaluation.separation import Opened
from worker.evaluation.subject import Subject
from worker.evaluation.suite import AuditResult, run_audit
from worker.evaluation.views import Case, View
from worker.gate import judge
from worker.meter import Meter
from worker.methods import stages_of
from worker.methods.frame import Erasure
from worker.ports import Progress
from worker.recording import Recording
from worker.report import make_report
from worker.report_page import render
from worker.vault import Vault, key_of

THRESHOLDS_NOT_MET = "thresholds_not_met"


def run_pipeline(
    spec: JobSpec, storage: Storage, progress: Progress, scratch: Path, device: str
) -> PipelineResult:
    """Run one job to its verdict; everything it leaves is below `spec.attempt_prefix` in the
    storage.

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
        self,
        spec: JobSpec,
        storage: Storage,
        progress: Progress,
        scratch: Path,
        device: torch.device,
    ) -> None:
        self._spec, self._storage, self._progress, self._scratch = (
            spec,
            storage,
            Recording(progress),
            scratch,
        )
        self._device = device
        self._meter = Meter(self._progress, device)
        key = key_of(spec.data_key)
        self._vault = Vault(storage, key)
        self._cache = FeatureCache(
            storage, tenant=spec.cache_prefix, job=spec.job_cache_prefix, job_key=key
        )

    def run(self) -> PipelineResult:
        torch.manual_seed(self._spec.request.seed)
        with self._meter.stage(Stage.PREPARING):
            original = load_clip(
                self._spec.model.reference,
                scratch=self._scratch,
                storage=self._storage,
                device=self._device,
            )
            reference = self._load_reference(original)
            plan = make_plan(self._spec.request, self._open())
            check_told_apart(original, plan, self._spec.request.target.templates)
            step = partial(self._progress.step, Stage.PREPARING)
            examiner = Examiner(self._cache, plan)
            before = examiner.features(original, step)
            aim = Subject(reference, examiner.features(reference, step)) if reference else None
        folder = self._scratch / "result"
        examine = partial(
            self._examined, plan=plan, examiner=examiner, before=before, aim=aim, folder=folder
        )
        if self._spec.request.method.name == "auto":
            report = self._choose(original, plan, examine)
        else:
            spec = self._spec
            report = examine(
                self._erase(original, plan, spec.request, spec.checkpoint_prefix, self._progress)
            )
        with self._meter.stage(Stage.PUBLISHING):
            return self._publish(report, folder)

    def _examined(
        self,
        erasure: Erasure,
        *,
        plan: Plan,
        examiner: Examiner,
        before: dict[str, Features],
        aim: Subject | None,
        folder: Path,
    ) -> Report:
        """Measure and judge an erasure, beside the model of `audit.reference` if there is one;
        leave its weights in `folder`.
        """
        step = partial(self._progress.step, Stage.AUDITING)
        with self._meter.stage(Stage.AUDITING):
            shutil.rmtree(folder, ignore_errors=True)
            digest = save_clip(erasure.clip, folder)
            after = examiner.features(replace(erasure.clip, digest=digest), step)
            case = examiner.case(erasure, before, after, aim)
            audit = run_audit(case, step)
        return self._report(erasure, plan, case, audit, digest)

    def _load_reference(self, original: Clip) -> Clip | None:
        """Return the model of `audit.reference`.

        Raises:
            JobFailure: `invalid_checkpoint`: it cannot be loaded, or is the original under another
                name.
        """
        if self._spec.reference is None:
            return None
        scratch = self._scratch / "reference"  # both models have a layout of their own
        scratch.mkdir()
        reference = load_clip(
            self._spec.reference.reference,
            scratch=scratch,
            storage=self._storage,
            device=self._device,
        )
        if reference.digest == original.digest:
            raise JobFailure("invalid_checkpoint", f"audit.reference {SAME_MODEL}.")
        return reference

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
        gone = data.forgotten()
        for source in data.evaluation:
            lasting = None if source.uri in gone else images(source)
            if source.id and lasting and (key := key_of(source.data_key)):
                self._cache.outlives_the_job(lasting.digest, source.id, key)
        return Opened(
            forget=images(data.forget),
            retain=images(data.retain),
            calibration=images(data.calibration),
            proxy=images(data.proxy),
            forget_test=images(data.forget_test),
            retain_test=images(data.retain_test),
            evaluation=tuple(i for source in data.evaluation if (i := images(source)) is not None),
            earlier=tuple(i for source in data.earlier if (i := images(source)) is not None),
        )

    def _choose(self, original: Clip, plan: Plan, examine: Examine) -> Report:
        """Let `auto` try methods, each on a model of its own."""

        def erase(request: ErasureRequest, checkpoint_prefix: str, progress: Progress) -> Erasure:
            return self._erase(original.frozen_twin(), plan, request, checkpoint_prefix, progress)

        chooser = Chooser(
            self._spec,
            self._storage,
            self._progress,
            screening=plan.screening,
            erase=erase,
            examine=examine,
        )
        return chooser.choose()

    def _erase(
        self,
        original: Clip,
        plan: Plan,
        request: ErasureRequest,
        checkpoint_prefix: str,
        progress: Progress,
    ) -> Erasure:
        """Run the method's stages, from the last checkpoint on if an earlier attempt left one."""
        erasure = Erasure.of(
            request,
            original,
            thresholds=self._spec.thresholds,
            labels=plan.labels,
            data=plan.data,
            store=StoredTensors(self._vault, self._spec.job_cache_prefix),
            progress=progress,
        )
        checkpoints = Checkpoints(self._vault, checkpoint_prefix)
        restored = checkpoints.restore(erasure)
        known = [s for s in self._meter.stages if s.stage is not Stage.PREPARING]
        self._meter.stages += restored.stages[
            len(known) :
        ]  # a checkpoint knows what the job had cost by then
        self._progress.steps |= restored.steps
        for number, stage in enumerate(stages_of(request)):
            if number >= restored.done:
                erasure.stage = stage.stage
                with self._meter.stage(stage.stage):
                    stage.run(erasure)
                if not all(bool(torch.isfinite(p).all()) for p in erasure.clip.model.parameters()):
                    raise JobFailure(
                        "method_failed", f"The weights are no longer finite after {stage.stage}."
                    )
                costs = [s for s in self._meter.stages if s.stage is not Stage.PREPARING]
                checkpoints.save(number, erasure, costs, self._progress.steps)
        return erasure

    def _report(
        self, erasure: Erasure, plan: Plan, case: Case, audit: AuditResult, digest: str
    ) -> Report:
        """Judge what was measured, and put the report together."""
        evaluations = tuple(
            evaluation_result(measurement, view.hits(case.original), view.hits(case.unlearned))
            for measurement, view in zip(
                plan.measurements, case.views, strict=False
            )  # the last view may be of samples
        )
        target = _target(case)
        return make_report(
            self._spec,
            erasure,
            target=target,
            evaluations=evaluations,
            sets=plan.sets,
            audit=audit,
            separation=plan.separation,
            reference=case.reference.clip if case.reference else None,
            change=case.change,
            thresholds=judge(self._spec.thresholds, target, evaluations, audit.measures),
            digest_after=digest,
            stages=self._meter.stages,
            curves=(*self._progress.curves(), *audit.curves),
        )

    def _publish(self, report: Report, folder: Path) -> PipelineResult:
        """Upload weights and report, the latter also as a page; weights of a failed run go into
        quarantine.
        """
        passed = report.verdict == "passed"
        place = "model" if passed else "quarantine"
        content = report.model_dump_json(indent=2)
        page = render(report, hashlib.sha256(content.encode()).hexdigest())
        reports = {"report.json": content, "report.html": page}
        for name, content in reports.items():
            (self._scratch / name).write_text(content, encoding="utf-8")
        files = {name: self._scratch / name for name in reports} | {
            f"{place}/{f.name}": f for f in folder.iterdir()
        }
        artifacts = []
        for name, file in sorted(files.items()):
            key = f"{self._spec.attempt_prefix}/{name}"
            size = self._storage.put(key, file)
            quarantined = name.startswith("quarantine/")
            artifacts.append(
                ArtifactRecord(
                    name=name,
                    key=key,
                    sha256=file_sha256(file),
                    size_bytes=size,
                    quarantined=quarantined,
                )
            )
        return PipelineResult(
            verdict=report.verdict,
            error=None if passed else _missed(report),
            artifacts=tuple(artifacts),
            architecture=report.model_after.architecture,
            model_digest=report.model_after.digest,
        )


def _target(case: Case) -> TargetResult:
    """Return what became of the target: on real images of its own set, and on samples."""
    results: dict[str, Change | None] = {}
    for view in case.views:
        if view.role in ("target", "samples") and view.role not in results:
            results[view.role] = _change(case, view, "forget")
    siblings = _change(case, case.own, "sibling") if case.own else None
    return TargetResult(
        accuracy=results.get("target"), synthetic_accuracy=results.get("samples"), siblings=siblings
    )


def _change(case: Case, view: View, role: Role) -> Change | None:
    chosen = [own == role for own in view.roles]
    return change(view.hits(case.original), view.hits(case.unlearned), chosen)


def _missed(report: Report) -> JobError:
    missed = [t for t in report.thresholds if not t.passed]
    words = "; ".join(t.words() for t in missed)
    detail = {"missed": [t.model_dump(mode="json") for t in missed]}
    return JobError(
        code=THRESHOLDS_NOT_MET,
        message=f"The result misses its thresholds: {words}.",
        detail=detail,
    )

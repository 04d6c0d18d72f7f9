"""Puts a report together from what the pipeline measured."""

import platform
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from shared.build import this_build
from shared.schemas.measure_catalogue import SAMPLES
from shared.schemas.measures import Curve
from shared.schemas.report import (
    EvaluationResult,
    ModelChange,
    ModelIdentity,
    Report,
    Separation,
    StageResult,
    TargetResult,
    ThresholdResult,
)
from shared.schemas.resolution import MeasuredSet
from shared.schemas.spec import JobSpec
from worker.clip import Clip
from worker.evaluation.suite import AuditResult
from worker.methods.frame import Erasure

PACKAGES = ("efface", "torch", "open_clip_torch", "safetensors", "pillow")


def make_report(
    spec: JobSpec,
    erasure: Erasure,
    *,
    target: TargetResult,
    evaluations: tuple[EvaluationResult, ...],
    sets: Sequence[MeasuredSet],
    audit: AuditResult,
    separation: tuple[Separation, ...] = (),
    reference: Clip | None,
    change: ModelChange,
    thresholds: tuple[ThresholdResult, ...],
    digest_after: str,
    stages: Sequence[StageResult],
    curves: tuple[Curve, ...] = (),
) -> Report:
    """Return the report of a finished run."""
    original = erasure.original
    return Report(
        job_id=spec.job_id,
        attempt=spec.attempt,
        created_at=datetime.now(UTC),
        request=spec.request,
        verdict="passed" if all(t.passed for t in thresholds) else "failed",
        thresholds=thresholds,
        target=target,
        evaluations=evaluations,
        separation=separation,
        measures=audit.measures,
        curves=curves,
        not_measured=audit.not_measured,
        evidence=audit.evidence,
        model_before=ModelIdentity(
            id=spec.model.id,
            architecture=original.architecture,
            digest=original.digest,
            made_by=_made_by(spec.model.reference),
        ),
        model_after=ModelIdentity(id=None, architecture=original.architecture, digest=digest_after),
        model_reference=_reference(spec, reference),
        model_change=change,
        method={
            "name": spec.request.method.name,
            "parameters": erasure.parameters.model_dump(mode="json"),
        }
        | erasure.notes,
        stages=tuple(stages),
        seed=spec.request.seed,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        build=this_build(),
        hardware=hardware(erasure.clip.device),
        warnings=spec.warnings,
        limits=(
            *limits(target, evaluations, audit, with_reference=reference is not None),
            *left_out(sets),
            *embedding_limits(change, audit),
            *separation_limits(separation),
        ),
    )


def _reference(spec: JobSpec, clip: Clip | None) -> ModelIdentity | None:
    if clip is None or spec.reference is None:
        return None
    return ModelIdentity(id=spec.reference.id, architecture=clip.architecture, digest=clip.digest)


def _made_by(reference: str) -> str | None:
    """Return the job below whose prefix a model lies in the storage, None where it is no result
    of one.
    """
    found = re.match(r"storage:tenants/[^/]+/jobs/([^/]+)/", reference)
    return found[1] if found else None


def hardware(device: torch.device) -> dict[str, str]:
    """Return what the run ran on."""
    facts = {
        "machine": platform.machine(),
        "device": str(device),
        "threads": str(torch.get_num_threads()),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def limits(
    target: TargetResult,
    evaluations: tuple[EvaluationResult, ...],
    audit: AuditResult,
    *,
    with_reference: bool = False,
) -> tuple[str, ...]:
    """Return in words what the report does not show."""
    words = [
        (
            "Accuracy is measured zero-shot with the prompts shown and the wordings of the audit; "
            "others may behave differently."
        ),
        (
            "That the reference model never saw the data, and was trained as the original was, is "
            "the "
            "request's word."
        )
        if with_reference
        else (
            "The report does not show how close the model is to one that was trained without the "
            "data."
        ),
    ]
    taken = {measure.name: measure for measure in audit.measures}
    if "benign_recall" not in taken:
        words.append(
            "How quickly further training would bring the knowledge back was not measured."
        )
    if "probe_recall" in taken:
        words.append(
            f"A classifier trained on the image features still finds what is forgotten in"
            f" {taken['probe_recall'].unlearned.value:.1%} of its images."
        )
    if target.accuracy is None:
        words.append(
            "No real image of the target was given: what was measured on it was measured on "
            "synthetic samples, which"
            " are not images of anything, and says little about real ones."
        )
    if not any(e.role == "transfer" and e.retain for e in evaluations):
        words.append(
            "No other evaluation set was given: what the edit cost elsewhere was not measured."
        )
    smallest = min((e.forget.after.n for e in evaluations if e.forget), default=None)
    if smallest is not None and smallest < 100:
        words.append(
            f"What is forgotten was measured on {smallest} images; the intervals say how much "
            "that "
            "leaves open."
        )
    return tuple(words)


def left_out(sets: Sequence[MeasuredSet]) -> Iterator[str]:
    """Say which images were not measured, without the names of their folders: certificates may
    withhold names.
    """
    for entry in sets:
        count, folders = sum(entry.left_out.values()), len(entry.left_out)
        if count:
            images, lie = (f"{count} images", "lie") if count > 1 else ("1 image", "lies")
            where = "a folder" if folders == 1 else f"{folders} folders"
            yield (
                f"Of the set {entry.name!r}, {images} that {lie} in {where} for which the "
                "request has no label were not measured."
            )


def embedding_limits(change: ModelChange, audit: AuditResult) -> Iterator[str]:
    """Say what embeddings that were computed before the erasure still answer: a vector index, or
    cached texts.

    An index of images is the original image tower; texts that are kept are the original text tower.
    """
    if "image" in change.towers:
        yield (
            "Embeddings of images that exist already, in a vector index for example, are as they "
            "were: searched with"
            " texts that the edited model embeds, they find what is forgotten in "
            f"{_still_found(audit, 'original_image_recall')}."
            " Delete them and embed the images again with the edited model."
        )
    if "text" in change.towers:
        yield (
            "Embeddings of texts that exist already, such as stored prompts, are as they were: on "
            "images that the edited"
            " model embeds, they find what is forgotten in "
            f"{_still_found(audit, 'original_text_recall')}."
            " Delete them and embed the texts again with the edited model."
        )


def _still_found(audit: AuditResult, name: str) -> str:
    """Return at which share of images a tower of the original finds what is forgotten, at the
    worst place with real ones.
    """
    taken = [measure for measure in audit.measures if measure.name == name]
    real = [measure for measure in taken if measure.where != SAMPLES]
    if not taken:
        return "a share of images that was not measured"
    worst = max((measure.unlearned for measure in real or taken), key=lambda value: value.value)
    return f"{worst.value:.1%} of {worst.n:,} {'images' if real else 'synthetic samples'}"


def separation_limits(pairs: Sequence[Separation]) -> Iterator[str]:
    """Say which images were in two roles. Names of classes and files stay out: certificates
    repeat these words.
    """
    for place in dict.fromkeys(pair.place for pair in pairs):
        of_place = [pair for pair in pairs if pair.place == place]
        if left_out := [pair for pair in of_place if pair.identical]:
            counts = ", ".join(f"{pair.identical:,} of data.{pair.seen_as}" for pair in left_out)
            yield (
                f"Images of {place!r} that the request also gives in another role were left out, "
                "the very same files:"
                f" {counts}. One that has two other roles counts in both."
            )
        if alike := [pair for pair in of_place if pair.similar]:
            counts = ", ".join(
                f"{pair.similar:,} of {pair.compared:,} like one of data.{pair.seen_as}"
                for pair in alike
            )
            yield (
                f"Images of {place!r} look like images in another role, perhaps copies in another "
                "format or size:"
                f" {counts}. They were used all the same; numbers that rest on copies are too good "
                "or too bad."
            )

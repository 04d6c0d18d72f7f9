"""Reports, keys and certificates for tests, made with no model and no service."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from services.certificates.statement import Facts, signed
from shared.crypto.certificate_keys import KeyFolder
from shared.schemas.certificate import CertifiedPurge
from shared.schemas.report import Report
from shared.schemas.request import ErasureRequest, Thresholds
from shared.schemas.spec import DataSource, DataSources, JobSpec, ModelSource

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
WEIGHTS = b"the new weights"
PAGE = b"<!DOCTYPE html><title>the report's page</title>"
EXTERNAL_ID = "DSR-2026-0042"
SECRETS = (EXTERNAL_ID, "Jane Doe", "jane@example.org", "ds_private", "/data/of/jane")
"""What a request of `spec` holds and a certificate must not."""


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def estimate(value: float, n: int = 100) -> dict[str, float | int]:
    """Return a share as a report writes it."""
    return {"value": value, "n": n, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05)}


def change(before: float, after: float) -> dict[str, Any]:
    """Return a share before and after."""
    return {"before": estimate(before), "after": estimate(after)}


def spec(**changes: Any) -> JobSpec:
    """Return the specification of a job whose request names a person in every field that can."""
    body = {
        "model": {"id": "mdl_1"},
        "target": {"type": "class", "class": "horse", "synonyms": ["pony"], "labels": ["horse", "dog", "cat"]},
        "method": {"name": "synthetic"},
        "data": {"forget": "/data/of/jane", "evaluation": [{"name": "farm", "dataset": "ds_private"}]},
        "seed": 7,
        "external_id": EXTERNAL_ID,
        "metadata": {"subject": "Jane Doe", "mail": "jane@example.org"},
    }
    request = ErasureRequest.model_validate(body | changes)
    return JobSpec(
        job_id="job_1",
        tenant_id="tnt_1",
        attempt=2,
        request=request,
        thresholds=Thresholds(max_forget_accuracy=0.05),
        model=ModelSource(reference="storage:models/mdl_1", id="mdl_1"),
        data=DataSources(
            forget=DataSource(name="forget", uri="/data/of/jane"),
            evaluation=(DataSource(name="farm", uri="storage:x", id="ds_private", digest="ab" * 32),),
        ),
    )


def report(
    job: JobSpec, *, verdict: Literal["passed", "failed"] = "passed", weights: bytes = WEIGHTS, **changes: Any
) -> Report:
    """Return the report of a job that was measured on one set."""
    after = 0.01 if verdict == "passed" else 0.4
    body = {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "created_at": NOON,
        "request": job.request,
        "verdict": verdict,
        "thresholds": [
            {
                "measure": "max_forget_accuracy",
                "limit": 0.05,
                "value": after,
                "passed": verdict == "passed",
                "where": "farm",
            }
        ],
        "target": {"accuracy": None, "synthetic_accuracy": change(0.9, after)},
        "evaluations": [
            {
                "name": "farm",
                "role": "target",
                "dataset_digest": "cd" * 32,
                "labels": ["horse", "dog", "cat"],
                "templates": ["a photo of a {}."],
                "forget": change(0.95, after),
                "retain": change(0.9, 0.89),
                "classes": [{"name": "horse", "role": "forget", "accuracy": change(0.95, after)}],
            }
        ],
        "measures": [
            {
                "name": "worst_prompt_recall",
                "title": "Recall under the worst prompt",
                "group": "forgetting",
                "where": "farm",
                "better": "lower",
                "original": estimate(0.97),
                "unlearned": estimate(after),
                "definition": "Of all prompts the one under which most is recognised.",
                "source": "Zhou et al. 2022",
                "detail": "a photo of a pony.",
            }
        ],
        "not_measured": [{"name": "relearning", "reason": "no image was given"}],
        "evidence": "association",
        "model_before": {"id": "mdl_1", "architecture": "ViT-B-32", "digest": "ef" * 32},
        "model_after": {"id": None, "architecture": "ViT-B-32", "digest": sha256(weights)},
        "model_change": {
            "tensors_changed": 2,
            "tensors_total": 10,
            "parameters_changed": 20,
            "parameters_total": 100,
            "towers": ["text"],
        },
        "method": {"name": "synthetic", "parameters": {"mode": "calibrated"}, "leads": ["pony"]},
        "stages": [],
        "seed": job.request.seed,
        "versions": {"efface": "0.1.0", "torch": "2.15.0"},
        "build": {"version": "0.1.0", "code": "12" * 32, "image": "sha256:34"},
        "hardware": {"device": "cpu"},
        "limits": ["Other prompts may behave differently."],
    }
    return Report.model_validate(body | changes)


def facts(
    *, verdict: Literal["passed", "failed"] = "passed", purge: CertifiedPurge | None = None, **changes: Any
) -> Facts:
    """Return what the certificate of `spec` is made from; `changes` are of the request."""
    job = spec(**changes)
    return Facts(
        spec=job,
        report=report(job, verdict=verdict),
        report_sha256=sha256(report_bytes(verdict=verdict, **changes)),
        weights_sha256=sha256(WEIGHTS),
        page_sha256=sha256(PAGE),
        received_at=NOON,
        started_at=NOON,
        finished_at=NOON,
        purge=purge,
    )


def report_bytes(*, verdict: Literal["passed", "failed"] = "passed", **changes: Any) -> bytes:
    """Return the report of `facts` as it lies in the storage."""
    return report(spec(**changes), verdict=verdict).model_dump_json(indent=2).encode()


def key_folder(folder: Path) -> KeyFolder:
    """Return a folder with a signing key."""
    keys = KeyFolder(folder)
    keys.create()
    return keys


def certificate(keys: KeyFolder, *, with_names: bool = True, **changes: Any) -> bytes:
    """Return a certificate of `facts`."""
    return signed(facts(**changes), keys.signer(), keys.subject_key("tests"), with_names=with_names)


RECEIPT = CertifiedPurge(data_sets=2, kept=1, objects=3, bytes=1000, versions="none", verified_at=NOON)

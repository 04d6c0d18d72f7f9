"""Reports against their published schema, and reports of any shape for tests of the page."""

import json
from datetime import UTC, datetime
from typing import Any

from jsonschema import Draft202012Validator

from shared.schemas.publish import REPORT_SCHEMA_FILE
from shared.schemas.report import Report
from shared.states import Stage

VALIDATOR = Draft202012Validator(json.loads(REPORT_SCHEMA_FILE.read_text()))


def checked(content: bytes | str) -> Report:
    """Return a report.json that keeps to the published schema, as an independent validator reads it."""
    VALIDATOR.validate(json.loads(content))
    return Report.model_validate_json(content)


def estimate(value: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "n": n, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05)}


def change(before: float, after: float, n: int = 100) -> dict[str, Any]:
    return {"before": estimate(before, n), "after": estimate(after, n)}


def evaluation(name: str, labels: list[str], *, forget: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return an evaluation set in which later labels lost more."""
    rows = [
        {
            "name": label,
            "role": "forget" if label == forget else "retain",
            "accuracy": change(0.9, 0.0 if label == forget else 0.9 - 0.5 * number / len(labels)),
        }
        for number, label in enumerate(labels)
    ]
    return {
        "name": name,
        "role": "target" if forget else "transfer",
        "dataset_digest": "ab" * 32,
        "labels": labels,
        "templates": ["a photo of a {}."],
        "forget": change(0.9, 0.0) if forget else None,
        "retain": change(0.9, 0.88),
        "classes": rows,
    } | changes


def measure(group: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return a measure of a group."""
    return {
        "name": name,
        "title": f"Title of {name}",
        "group": group,
        "where": "objects",
        "better": "lower",
        "original": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 80},
        "unlearned": {"value": 0.125, "low": 0.05, "high": 0.2, "n": 80},
        "definition": f"How {name} is defined.",
        "source": "A paper, equation 3",
    } | changes


def taken(name: str, after: float, **changes: Any) -> dict[str, Any]:
    """A measure that looks for what is forgotten, 98.8 % in the original."""
    before = {"value": 0.9875, "low": 0.93, "high": 1.0, "n": 80}
    now = {"value": after, "low": 0.0, "high": 1.0, "n": 80}
    return measure("representation", name, original=before, unlearned=now) | changes


def report(labels: list[str] | None = None, **changes: Any) -> Report:
    """Return a report of a class erasure, the first label being the class."""
    labels = labels or ["umbrella", "fish", "tree"]
    body: dict[str, Any] = {
        "job_id": "job_1",
        "attempt": 1,
        "created_at": datetime(2026, 11, 2, 9, 0, tzinfo=UTC),
        "request": {
            "model": {"id": "mdl_1"},
            "target": {"type": "class", "class": labels[0], "labels": labels},
            "method": {"name": "synthetic"},
        },
        "verdict": "passed",
        "thresholds": [
            {"measure": "max_forget_accuracy", "limit": 0.05, "value": 0.0, "passed": True, "where": "objects"}
        ],
        "target": {"accuracy": change(0.9, 0.0), "synthetic_accuracy": None, "siblings": None},
        "evaluations": [evaluation("objects", labels, forget=labels[0])],
        "model_before": {"id": "mdl_1", "architecture": "ViT-B-32", "digest": "0" * 64},
        "model_after": {"id": None, "architecture": "ViT-B-32", "digest": "1" * 64},
        "model_change": {
            "tensors_changed": 1,
            "tensors_total": 9,
            "parameters_changed": 50,
            "parameters_total": 1000,
            "towers": ["image"],
        },
        "method": {"name": "synthetic", "mode": "calibrated"},
        "stages": [
            {"stage": Stage.FORGETTING, "seconds": 2.5, "peak_memory_bytes": 2**30, "peak_device_memory_bytes": None}
        ],
        "seed": 0,
        "versions": {"python": "3.11"},
        "hardware": {"device": "cpu"},
        "limits": ["Other prompts may behave differently."],
    }
    return Report.model_validate(body | changes)

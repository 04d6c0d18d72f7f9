"""Example bodies for the OpenAPI document. A test posts each of them."""

from fastapi.openapi.models import Example

MODEL_ID = "mdl_01k3z8w9d0v6m2n4p8q1r5s7t9"
DATASET_ID = "ds_01k3z8w9d0v6m2n4p8q1r5s7t9"
RETAIN_ID = "ds_01k3z8x4h7c2b9f5k6m0n3r8w1"

JOB_REQUESTS: dict[str, Example] = {
    "class": {
        "summary": "Forget a class, from its name alone",
        "value": {
            "model": {"id": MODEL_ID},
            "target": {
                "type": "class",
                "class": "horse",
                "synonyms": ["pony"],
                "labels": [
                    "airplane",
                    "automobile",
                    "bird",
                    "cat",
                    "deer",
                    "dog",
                    "frog",
                    "horse",
                    "ship",
                    "truck",
                ],
            },
            "method": {"name": "synthetic", "parameters": {}},
            "data": {"evaluation": [{"name": "cifar10", "dataset": DATASET_ID}]},
            "thresholds": {"max_forget_accuracy": 0.05, "max_retain_drop": 0.02},
            "seed": 0,
            "external_id": "DSR-2026-0042",
            "received_at": "2026-11-02T09:00:00Z",
            "metadata": {"desk": "privacy"},
        },
    },
    "subgroup": {
        "summary": "Forget a part of a class, from images of it",
        "value": {
            "model": {"id": MODEL_ID},
            "target": {
                "type": "subgroup",
                "class": "elephant",
                "subgroup": "sketch",
                "labels": ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"],
            },
            "method": {"name": "three_stage"},
            "data": {"forget": DATASET_ID, "retain": RETAIN_ID},
        },
    },
}

KEY_REQUEST: dict[str, Example] = {
    "reader": {
        "summary": "A key that may look at jobs",
        "value": {"name": "dashboard", "scopes": ["jobs:read"]},
    }
}

KEY_ROTATION: dict[str, Example] = {
    "an hour": {
        "summary": "The old secret works for an hour more",
        "value": {"grace_seconds": 3600},
    }
}

MODEL_REGISTRATION = {
    "name": "clip-b32",
    "model": {"architecture": "ViT-B-32", "pretrained": "openai"},
}

HOLD: dict[str, Example] = {
    "identity": {"value": {"reason": "identity in doubt, proof was asked for"}}
}
EXTENSION: dict[str, Example] = {
    "complexity": {"value": {"reason": "complexity: the class spans four models"}}
}
REFUSAL: dict[str, Example] = {
    "claims": {"value": {"ground": "legal_claims", "detail": "a case is pending"}}
}
WEBHOOK: dict[str, Example] = {
    "ends": {
        "summary": "The ends of jobs, and what endangers a deadline",
        "value": {"url": "https://compliance.example.com/efface"},
    },
    "some": {
        "summary": "Some events",
        "value": {
            "url": "https://compliance.example.com/efface",
            "events": ["job.failed", "job.deadline_at_risk"],
            "description": "compliance desk",
        },
    },
}

SUBJECT_REQUEST: dict[str, Example] = {
    "erasure": {
        "summary": "Forget a person whom the model knows as a class",
        "value": {
            "regulation": "gdpr",
            "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
            "subject_request_type": "erasure",
            "submitted_time": "2026-11-02T09:00:00Z",
            "subject_identities": [
                {
                    "identity_type": "controller_customer_id",
                    "identity_value": "4711",
                    "identity_format": "raw",
                }
            ],
            "api_version": "2.0",
            "status_callback_urls": [],
            "extensions": {
                "opendsr.example.com": {
                    "model": {"id": MODEL_ID},
                    "target": {
                        "type": "class",
                        "class": "person 4711",
                        "labels": ["person 4711", "person 4712"],
                    },
                    "method": {"name": "synthetic"},
                }
            },
        },
    }
}

FIDES_ERASURE: dict[str, Example] = {
    "person": {
        "summary": "What is the same for every person",
        "value": {
            "model": {"id": MODEL_ID},
            "labels": ["person 4711", "person 4712"],
            "method": {"name": "synthetic"},
        },
    }
}

"""The erasure certificate: an in-toto Statement (version 1) about the new weights, carried in a
DSSE envelope.

It repeats of the report what a third party has to know, and binds the rest by digest. It holds no
external id, no metadata and no address of data: references are hashed under a key that the operator
keeps (`shared.crypto.certificate_keys`).

`python -m shared.schemas.certificate` writes the published JSON Schema anew after a change of
the models."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shared.schemas.base import Schema
from shared.schemas.measures import NotMeasured, Value
from shared.schemas.report import Change, SeenAs, TargetResult, ThresholdResult
from shared.schemas.resolution import SetRole

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:efface:erasure-certificate:v1"
"""The last part is the version: it grows when a field changes its meaning or goes; fields may be
added without.
"""
SUBJECT_NAME = "open_clip_model.safetensors"
SCHEMA_FILE = Path(__file__).parent / "published" / "certificate-1.json"
SCHEMA_PATH = "/schemas/certificate-1.json"
"""Where every API serves it, to anyone."""

Hmac = str
"""HMAC-SHA256 in hexadecimal, under the tenant's key."""


class DigestSet(Schema):
    """Digests of one file, by algorithm."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class StatementSubject(Schema):
    """What the statement is about."""

    name: str = Field(examples=[SUBJECT_NAME])
    digest: DigestSet


class CertifiedTarget(Schema):
    """What was to be forgotten."""

    type: Literal["class", "subgroup"]
    names: tuple[str, ...] | None = Field(
        description="the classes; null where the operator withholds names"
    )
    subgroup: str | None = Field(description="the part of the class, where only a part was meant")
    references: tuple[Hmac, ...] = Field(
        description="HMAC of each of these names: classes, then the subgroup"
    )
    labels: int = Field(
        description="how many classes the model was used with; 0 where they came from the data"
    )


class CertifiedData(Schema):
    """A data set of the request."""

    role: str = Field(examples=["forget", "evaluation"])
    name: str
    reference: Hmac | None = Field(
        description="HMAC of the archive's SHA-256; null where it was no upload"
    )


class CertifiedRequest(Schema):
    """The erasure request, without what could name a person."""

    target: CertifiedTarget
    data: tuple[CertifiedData, ...]
    seed: int


class CertifiedModel(Schema):
    """A model by its weights."""

    id: str | None
    architecture: str
    digest: DigestSet


class CertifiedMethod(Schema):
    """How it was edited."""

    name: str
    parameters: dict[str, Any]


class CertifiedSoftware(Schema):
    """What did the work."""

    name: Literal["efface"] = "efface"
    version: str
    code: DigestSet | None = Field(
        description="of the installed source files, see docs/certificate.md"
    )
    image: str | None = Field(
        description="digest of the container image, where the operator states it"
    )
    packages: dict[str, str] = Field(description="versions of what it stands on")


class CertifiedTimes(Schema):
    """When."""

    received_at: datetime = Field(description="when the data subject asked, as the request says it")
    started_at: datetime
    finished_at: datetime


class CertifiedEvaluation(Schema):
    """One evaluation set, before and after; shares with n and 95 % Wilson interval."""

    name: str
    role: SetRole
    forget: Change | None
    retain: Change | None


class CertifiedMeasure(Schema):
    """One further measure; its definition and source are in the report."""

    name: str
    where: str
    unit: str
    original: Value | None
    unlearned: Value
    reference: Value | None


class CertifiedSeparation(Schema):
    """What two sets of the request have in common; names of images are in the report."""

    place: str = Field(
        description="the set that gave way: an evaluation set, `target`, or a field of `data`"
    )
    seen_as: SeenAs = Field(description="the field of `data` that it was compared with")
    identical: int = Field(
        ge=0, description="images with the very same file in both; left out of `place`"
    )
    similar: int = Field(
        ge=0, description="further images that look like one of the other set; kept"
    )
    compared: int = Field(ge=0, description="images of `place` that were looked at for this")


class Measurements(Schema):
    """What was measured before and after, by the same code on the same images."""

    target: TargetResult
    evaluations: tuple[CertifiedEvaluation, ...]
    measures: tuple[CertifiedMeasure, ...]
    not_measured: tuple[NotMeasured, ...]
    separation: tuple[CertifiedSeparation, ...] = Field(
        (), description="images that were in two roles of the request"
    )


class CertifiedReport(Schema):
    """The report that holds everything else."""

    version: str
    digest: DigestSet = Field(description="of report.json, byte for byte")
    page: DigestSet | None = Field(
        None, description="of report.html, byte for byte; null where there is no page"
    )


class CertifiedPurge(Schema):
    """What was removed of the data that the request brought, and when a listing showed that
    nothing is left of it.
    """

    data_sets: int = Field(ge=0, description="that the request used and that were removed")
    kept: int = Field(
        ge=0, description="data sets of the request that were not to be removed, and were not"
    )
    objects: int = Field(ge=0)
    bytes: int = Field(ge=0)
    versions: Literal["none", "removed", "unknown"] = Field(
        description=(
            "of these objects: the storage kept none, they were removed too, or it does not tell"
        )
    )
    verified_at: datetime = Field(description="when the listing was found empty")
    key_destroyed_at: datetime | None = Field(
        None, description="where the data was encrypted under a key of its own"
    )


class CertifiedWarning(Schema):
    """What the request was told when it came, though it was no error."""

    pointer: str = Field(description="RFC 6901, into the request")
    detail: str | None = Field(description="null where the operator withholds names")


class Predicate(Schema):
    """The certificate proper."""

    job: str
    number: int = Field(ge=1, description="counts the certificates of the job")
    completes: DigestSet | None = Field(
        description="digest of the payload of the certificate before this one"
    )
    issued_at: datetime
    verdict: Literal["passed", "failed"]
    weights: Literal["published", "quarantined"]
    evidence: Literal["none", "association", "image_encoder", "both"] | None = Field(
        description=(
            "what the measurements show to have been removed; null where that was not assessed"
        )
    )
    request: CertifiedRequest
    subject_reference: Hmac | None = Field(
        description="HMAC of the request's external id; null where it has none"
    )
    base_model: CertifiedModel
    reference_model: CertifiedModel | None = Field(
        None,
        description=(
            "what it was compared with: a model that never saw the data, by the word of "
            "whoever asked"
        ),
    )
    method: CertifiedMethod
    software: CertifiedSoftware
    times: CertifiedTimes
    thresholds: tuple[ThresholdResult, ...]
    measurements: Measurements
    report: CertifiedReport
    purge: CertifiedPurge | None = Field(
        description="null: the removal of the request's data was not confirmed by then"
    )
    warnings: tuple[CertifiedWarning, ...] = ()
    limits: tuple[str, ...] = Field(description="what this certificate does not state, in words")


class Statement(Schema):
    """The payload of the envelope."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(
        "https://in-toto.io/Statement/v1", alias="_type"
    )
    subject: tuple[StatementSubject, ...] = Field(min_length=1, max_length=1)
    predicate_type: Literal["urn:efface:erasure-certificate:v1"] = Field(
        "urn:efface:erasure-certificate:v1", alias="predicateType"
    )
    predicate: Predicate


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a payload, strict as it is written; whoever reads one ignores
    fields that are new.
    """
    identity = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{PREDICATE_TYPE}:schema",
    }
    schema = Statement.model_json_schema(by_alias=True, mode="serialization")
    return identity | schema | {"title": "Efface erasure certificate 1"}


def published_text() -> str:
    """Return the content that the published file must have."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(published_text(), encoding="utf-8")

"""What a certificate says: a report and a few facts about its job, told to someone who must not
learn whom it is about.

Needs no database: `efface run` makes the same statement as the service.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.crypto.certificate_keys import Signer, SubjectKey
from shared.crypto.dsse import seal
from shared.schemas.certificate import (
    PAYLOAD_TYPE,
    SUBJECT_NAME,
    CertifiedData,
    CertifiedEvaluation,
    CertifiedMeasure,
    CertifiedMethod,
    CertifiedModel,
    CertifiedPurge,
    CertifiedReport,
    CertifiedRequest,
    CertifiedSeparation,
    CertifiedSoftware,
    CertifiedTarget,
    CertifiedTimes,
    CertifiedWarning,
    DigestSet,
    Measurements,
    Predicate,
    Statement,
    StatementSubject,
)
from shared.schemas.report import ModelIdentity, Report
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import LISTS, DataSource, JobSpec

CERTIFICATE_NAME = "certificate.json"

LIMITS = (
    "This certificate states what was measured on the weights that it names, by the software that "
    "it names. It does"
    " not state that no trace of the data is left in them.",
    "The signature shows who issued the certificate and that it is unchanged. It does not show "
    "that the data sets fit"
    " their purpose; the report says what they were.",
    (
        "Copies of the weights from before, and models made from them, may exist elsewhere; "
        "nothing "
        "is stated about them."
    ),
)
UNPURGED = (
    "When this certificate was issued, the removal of the data that the request brought was not "
    "yet confirmed; a later"
    " certificate of the same job may confirm it."
)
NO_SUBJECT = "The request gave no external id, so this certificate refers to no data subject."
NO_BUILD = "The code that did the work is known by its version alone."


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a certificate is made from."""

    spec: JobSpec
    report: Report
    report_sha256: str
    weights_sha256: str
    page_sha256: str | None = None
    """Of report.html, where there is one."""
    received_at: datetime
    started_at: datetime
    finished_at: datetime
    purge: CertifiedPurge | None = None
    number: int = 1
    completes: str | None = None
    """SHA-256 of the payload of the certificate before this one."""


def signed(facts: Facts, signer: Signer, subject_key: SubjectKey, *, with_names: bool) -> bytes:
    """Return a certificate: the signed envelope, as it is handed out."""
    statement = make_statement(facts, subject_key, with_names=with_names)
    return seal(PAYLOAD_TYPE, statement.model_dump_json(by_alias=True, indent=1).encode(), signer)


def make_statement(facts: Facts, subject_key: SubjectKey, *, with_names: bool) -> Statement:
    """Return what is to be signed, issued now.

    Args:
        facts: what is known.
        subject_key: the tenant's; references are hashed under it.
        with_names: say which classes were to be forgotten; otherwise their references alone stand
            there.
    """
    report, request = facts.report, facts.spec.request
    external_id = request.external_id
    predicate = Predicate(
        job=facts.spec.job_id,
        number=facts.number,
        completes=DigestSet(sha256=facts.completes) if facts.completes else None,
        issued_at=datetime.now(UTC),
        verdict=report.verdict,
        weights="published" if report.verdict == "passed" else "quarantined",
        evidence=report.evidence,
        request=CertifiedRequest(
            target=_target(request, subject_key, with_names=with_names),
            data=tuple(_data(facts.spec, subject_key)),
            seed=report.seed,
        ),
        subject_reference=subject_key.reference(external_id) if external_id else None,
        base_model=_model(report.model_before),
        reference_model=_model(report.model_reference) if report.model_reference else None,
        method=CertifiedMethod(
            name=report.method.get("name", request.method.name),
            parameters=report.method.get("parameters", {}),
        ),
        software=_software(report),
        times=CertifiedTimes(
            received_at=facts.received_at,
            started_at=facts.started_at,
            finished_at=facts.finished_at,
        ),
        thresholds=report.thresholds,
        measurements=_measurements(report),
        report=CertifiedReport(
            version=report.version,
            digest=DigestSet(sha256=facts.report_sha256),
            page=DigestSet(sha256=facts.page_sha256) if facts.page_sha256 else None,
        ),
        purge=facts.purge,
        warnings=tuple(
            CertifiedWarning(pointer=warning.pointer, detail=warning.detail if with_names else None)
            for warning in report.warnings
        ),
        limits=tuple(_limits(facts)),
    )
    subject = StatementSubject(name=SUBJECT_NAME, digest=DigestSet(sha256=facts.weights_sha256))
    return Statement(subject=(subject,), predicate=predicate)


def _target(request: ErasureRequest, key: SubjectKey, *, with_names: bool) -> CertifiedTarget:
    target = request.target
    names = target.names()
    subgroup = target.subgroup if target.type == "subgroup" else None
    return CertifiedTarget(
        type=target.type,
        names=names if with_names else None,
        subgroup=subgroup if with_names else None,
        references=tuple(
            key.reference(name) for name in (*names, *([subgroup] if subgroup else []))
        ),
        labels=len(target.labels),
    )


def _model(model: ModelIdentity) -> CertifiedModel:
    return CertifiedModel(
        id=model.id, architecture=model.architecture, digest=DigestSet(sha256=model.digest)
    )


def _data(spec: JobSpec, key: SubjectKey) -> Iterator[CertifiedData]:
    def certified(role: str, source: DataSource) -> CertifiedData:
        reference = key.reference(source.digest) if source.digest else None
        return CertifiedData(role=role, name=source.name, reference=reference)

    for role, source in spec.data:
        if isinstance(source, DataSource):
            yield certified(role, source)
    for role in LISTS:
        for source in getattr(spec.data, role):
            yield certified(role, source)


def _software(report: Report) -> CertifiedSoftware:
    packages = {name: version for name, version in report.versions.items() if name != "efface"}
    version = report.versions.get("efface", "unknown")
    if report.build is None:
        return CertifiedSoftware(version=version, code=None, image=None, packages=packages)
    code = DigestSet(sha256=report.build.code)
    return CertifiedSoftware(
        version=report.build.version, code=code, image=report.build.image, packages=packages
    )


def _measurements(report: Report) -> Measurements:
    """Repeat what was measured, without what names classes, prompts or images."""
    return Measurements(
        target=report.target,
        evaluations=tuple(
            CertifiedEvaluation(name=e.name, role=e.role, forget=e.forget, retain=e.retain)
            for e in report.evaluations
        ),
        measures=tuple(
            CertifiedMeasure(
                name=m.name,
                where=m.where,
                unit=m.unit,
                original=m.original,
                unlearned=m.unlearned,
                reference=m.reference,
            )
            for m in report.measures
        ),
        not_measured=report.not_measured,
        separation=tuple(
            CertifiedSeparation.model_validate(pair.model_dump(exclude={"example"}))
            for pair in report.separation
        ),
    )


def _limits(facts: Facts) -> Iterator[str]:
    yield from LIMITS
    yield from facts.report.limits
    if facts.purge is None:
        yield UNPURGED
    if not facts.spec.request.external_id:
        yield NO_SUBJECT
    if facts.report.build is None:
        yield NO_BUILD

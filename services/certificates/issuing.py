"""Certificates of the service: which are owed, and issuing each of them once.

A job with a verdict is owed a certificate by its row alone, so nothing is lost between its end
and the signature: the relay issues what is owed, and starts again where it was killed. A
certificate is never changed. When the removal of a request's data is confirmed later, a second
one says so and names the first."""

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.certificates import signing_keys
from services.certificates.statement import CERTIFICATE_NAME, Facts, signed
from services.jobs import queries
from services.purging import job_leftovers
from shared.crypto.certificate_keys import KeyFolder
from shared.crypto.dsse import NotAnEnvelope, unseal
from shared.errors import Conflict, EffaceError, NotYet
from shared.ports.object_storage import ObjectMissing, Storage
from shared.postgres.tables import Artifact, Job, Tenant
from shared.schemas.certificate import SUBJECT_NAME, CertifiedPurge, Statement
from shared.schemas.job import ArtifactView
from shared.schemas.report import Report
from shared.schemas.stored import Unreadable, stored_spec
from shared.settings import Settings
from shared.states import JobState

ReceiptOf = Callable[[Session, str], CertifiedPurge | None]
"""Job id -> the receipt of its purge, None before there is one."""
_NAME = re.compile(r"certificate(?:-(\d+))?\.json")


class Uncertifiable(EffaceError):
    """What a job left in the storage does not bear out what was committed: nothing is signed."""

    code = "uncertifiable"
    title = "The job cannot be certified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """What issuing takes besides a session."""

    storage: Storage
    folder: KeyFolder
    with_names: bool
    receipt_of: ReceiptOf


def issuer_of(settings: Settings, storage: Storage) -> Issuer:
    """Return the issuer that the operator has set up."""
    return Issuer(
        storage=storage,
        folder=KeyFolder(settings.signing_dir),
        with_names=settings.certificate_names,
        receipt_of=confirmed_purge,
    )


def confirmed_purge(session: Session, job_id: str) -> CertifiedPurge | None:
    """Return what a certificate says of a job's purge; None before all of it is done."""
    tenant_id = session.scalars(select(Job.tenant_id).where(Job.id == job_id)).one()
    receipt = job_leftovers.receipt(session, tenant_id, job_id)
    if not receipt.complete or receipt.listing_empty_at is None:
        return None
    gone = [entry for entry in receipt.datasets if entry.state == "purged"]
    objects = [*receipt.leftovers, *(found for entry in gone for found in entry.objects)]
    destroyed = [entry.key_destroyed_at for entry in gone if entry.key_destroyed_at is not None]
    versions = {receipt.versions, *(entry.versions for entry in gone)}
    seen = [
        receipt.listing_empty_at,
        *(entry.listing_empty_at for entry in gone if entry.listing_empty_at),
    ]
    return CertifiedPurge(
        data_sets=len(gone),
        kept=len(receipt.datasets) - len(gone),
        objects=len(objects),
        bytes=sum(found.bytes for found in objects),
        versions="unknown"
        if "unknown" in versions
        else "removed"
        if "deleted" in versions
        else "none",
        verified_at=max(seen),
        key_destroyed_at=max(destroyed) if len(destroyed) == len(gone) and gone else None,
    )


def owed(session: Session, besides: Collection[str] = (), limit: int = 20) -> list[str]:
    """Return jobs that are owed a certificate, those first that ended first."""
    query = select(Job.id).where(
        Job.verdict.is_not(None), Job.certified_at.is_(None), Job.id.not_in(besides)
    )
    return list(session.scalars(query.order_by(Job.finished_at).limit(limit)))


def issue(session: Session, job_id: str, issuer: Issuer) -> bool:
    """Issue the certificate that a job is owed; False if it is owed none, or another relay is at
    it.

    The object is written before the row: a crash between them leaves an object that the next try
    writes over.

    Raises:
        NoSigningKey: there is no key to sign with.
        Uncertifiable: the storage does not hold what was committed.
        Unavailable: the storage does not answer.
    """
    uncertified = (Job.id == job_id, Job.verdict.is_not(None), Job.certified_at.is_(None))
    job = session.scalar(select(Job).where(*uncertified).with_for_update(skip_locked=True))
    if job is None:
        return False
    signer = issuer.folder.signer()
    receipt = issuer.receipt_of(session, job_id)
    before = _last(session, job_id, issuer.storage)
    reported = session.get(Artifact, (job_id, "report.json"))
    can = (
        before is None or reported is None or reported.removed_at is None
    )  # without a report the last one stands
    if can and (before is None or (receipt is not None and before.receipt is None)):
        facts = _facts(session, job, issuer.storage, receipt, before)
        key = issuer.folder.subject_key(_tenant(session, job))
        content = signed(facts, signer, key, with_names=issuer.with_names)
        _keep(session, issuer.storage, facts, content)
        signing_keys.publish(session, signer)
    job.certified_at = func.clock_timestamp()
    return True


def find(session: Session, tenant_id: str, job_id: str, number: int | None = None) -> ArtifactView:
    """Return where a certificate of a job is: the last one, or the one of this number.

    Raises:
        NotFound: the tenant has no such job.
        NotYet: it will be issued.
        Conflict: the job ended without a verdict, or has no certificate of this number.
    """
    job = queries.get(session, tenant_id, job_id)
    found = {
        n: a
        for a in queries.artifacts(session, tenant_id, job_id)
        if (n := _number_of(a.name)) is not None
    }
    if not found:
        if not job.state.final:
            raise NotYet(f"The job is {job.state}; it has no certificate before it ends.")
        if job.verdict is None:
            why = f" ({job.error.code})" if job.error else ""
            raise Conflict(
                f"The job has {job.state}{why} without a verdict; there is nothing to certify."
            )
        raise NotYet(
            "The certificate is about to be issued; where it does not come, the relay's log "
            "says "
            "why."
        )
    wanted = max(found) if number is None else number
    if wanted not in found:
        raise Conflict(f"The job has no certificate {wanted}; the last one is {max(found)}.")
    return found[wanted]


@dataclass(frozen=True, slots=True)
class _Before:
    """The certificate that a job has already."""

    number: int
    payload_sha256: str
    receipt: CertifiedPurge | None


def _last(session: Session, job_id: str, storage: Storage) -> _Before | None:
    """Return the last certificate of a job, None where it has none.

    Raises:
        Uncertifiable: the storage has lost it.
    """
    numbers = {_number_of(name): artifact for name, artifact in _artifacts(session, job_id).items()}
    number = max(number for number in [0, *numbers] if number is not None)
    if number == 0:
        return None
    try:
        payload = unseal(storage.get(numbers[number].key)).payload
        receipt = Statement.model_validate_json(payload, extra="ignore").predicate.purge
    except (ObjectMissing, NotAnEnvelope, ValidationError) as error:
        raise Uncertifiable(
            f"Its certificate {number} is not in the storage as it was issued."
        ) from error
    return _Before(number, hashlib.sha256(payload).hexdigest(), receipt)


def _facts(
    session: Session,
    job: Job,
    storage: Storage,
    receipt: CertifiedPurge | None,
    before: _Before | None,
) -> Facts:
    """Gather what was committed, and check that the storage bears it out.

    Raises:
        Uncertifiable: it does not.
    """
    files = _artifacts(session, job.id)
    place = "model" if job.state == JobState.SUCCEEDED else "quarantine"
    try:
        committed, weights = files["report.json"], files[f"{place}/{SUBJECT_NAME}"]
        content = storage.get(committed.key)
        report = Report.model_validate_json(content, extra="ignore")
    except (KeyError, ValidationError) as error:  # ObjectMissing is a KeyError, too
        raise Uncertifiable(
            f"{type(error).__name__}: report or weights are missing, or the report is none."
        ) from error
    if hashlib.sha256(content).hexdigest() != committed.sha256:
        raise Uncertifiable("The report in the storage is not the one that was committed.")
    page = files.get("report.html")
    if page is not None and hashlib.sha256(_stored(storage, page)).hexdigest() != page.sha256:
        raise Uncertifiable("The report's page in the storage is not the one that was committed.")
    if (report.model_after.digest, report.verdict) != (weights.sha256, job.verdict):
        raise Uncertifiable(
            "The report speaks of other weights, or of another verdict, than was committed."
        )
    if before is None:  # later certificates are of the same weights, which may be deleted by then
        _check_weights(storage, weights)
    if job.started_at is None or job.finished_at is None:
        raise Uncertifiable("The job has a verdict and no beginning or end.")
    try:
        spec = stored_spec(job.spec)
    except Unreadable as error:
        raise Uncertifiable(
            f"Its specification cannot be read by this version. {error.detail}"
        ) from error
    return Facts(
        spec=spec,
        report=report,
        report_sha256=committed.sha256,
        weights_sha256=weights.sha256,
        page_sha256=page.sha256 if page else None,
        received_at=job.received_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        purge=receipt,
        number=before.number + 1 if before else 1,
        completes=before.payload_sha256 if before else None,
    )


def _stored(storage: Storage, artifact: Artifact) -> bytes:
    try:
        return storage.get(artifact.key)
    except ObjectMissing as error:
        raise Uncertifiable("The report's page is not in the storage any more.") from error


def _check_weights(storage: Storage, committed: Artifact) -> None:
    """Read the weights as they lie in the storage, and compare them with what was committed.

    Raises:
        Uncertifiable: they are others, or not there.
    """
    try:
        size = storage.size(committed.key)
        if size != committed.size_bytes:
            raise Uncertifiable(
                f"The weights in the storage have {size} bytes; {committed.size_bytes} were "
                "committed."
            )
        digest = hashlib.sha256()
        for chunk in storage.stream(committed.key):
            digest.update(chunk)
    except ObjectMissing as error:
        raise Uncertifiable("The weights are not in the storage.") from error
    if digest.hexdigest() != committed.sha256:
        raise Uncertifiable("The weights in the storage are not those that were committed.")


def _keep(session: Session, storage: Storage, facts: Facts, content: bytes) -> None:
    """Store a certificate beside the other artifacts of the attempt that won."""
    spec, attempt = facts.spec, facts.report.attempt
    name = _name_of(facts.number)
    key = f"{spec.job_prefix}/{attempt}/{name}"
    size = storage.put(key, content)
    session.add(
        Artifact(
            job_id=spec.job_id,
            name=name,
            tenant_id=spec.tenant_id,
            attempt=attempt,
            key=key,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=size,
        )
    )


def _artifacts(session: Session, job_id: str) -> dict[str, Artifact]:
    return {
        artifact.name: artifact
        for artifact in session.scalars(select(Artifact).where(Artifact.job_id == job_id))
    }


def _tenant(session: Session, job: Job) -> str:
    """Return the name of a job's tenant."""
    return session.scalars(select(Tenant.name).where(Tenant.id == job.tenant_id)).one()


def _name_of(number: int) -> str:
    return CERTIFICATE_NAME if number == 1 else f"certificate-{number}.json"


def _number_of(name: str) -> int | None:
    """Return which certificate an artifact is, None where it is another thing."""
    found = _NAME.fullmatch(name)
    return int(found[1] or 1) if found else None

"""Whether a certificate holds: from its bytes and public keys alone, with no database and no
network.

In this order, so that nothing is read before it is known to be signed: the envelope, its type,
the key, the payload, the signature; then what the statement is, and whether the files at hand
are the ones that it is about."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from shared.crypto.certificate_keys import SubjectKey
from shared.crypto.dsse import NotAnEnvelope, Opened, unseal
from shared.crypto.public_keys import PublicKeys
from shared.files.image_archives import file_sha256
from shared.schemas.certificate import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Predicate,
    Statement,
)


class Outcome(StrEnum):
    """What was found. The first two hold; a certificate of any other outcome shows nothing."""

    VALID = "valid"
    VERDICT_FAILED = "verdict_failed"
    """Valid, and what it certifies is that the result missed its thresholds."""
    NOT_A_CERTIFICATE = "not_a_certificate"
    WRONG_PAYLOAD_TYPE = "wrong_payload_type"
    UNKNOWN_KEY = "unknown_key"
    PAYLOAD_CHANGED = "payload_changed"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_PREDICATE = "wrong_predicate"
    WRONG_WEIGHTS = "wrong_weights"
    WRONG_REPORT = "wrong_report"
    WRONG_SUBJECT = "wrong_subject"
    WRONG_PAGE = "wrong_page"


@dataclass(frozen=True, slots=True)
class Finding:
    """An outcome with its reason in one line, and what was signed where that was established."""

    outcome: Outcome
    reason: str
    key_id: str | None = None
    statement: Statement | None = None

    @property
    def holds(self) -> bool:
        """True where the certificate is what it claims to be, whatever its verdict."""
        return self.outcome in (Outcome.VALID, Outcome.VERDICT_FAILED)


@dataclass(frozen=True, slots=True)
class Subject:
    """An external id, and the key of the tenant whose it is."""

    external_id: str
    key: SubjectKey

    def reference(self) -> str:
        """Return what a certificate about this subject holds."""
        return self.key.reference(self.external_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibits:
    """What a certificate is compared with; what is None is not compared."""

    weights: Path | None = None
    report: Path | None = None
    page: Path | None = None
    """`report.html`."""
    subject: Subject | None = None


NOTHING = Exhibits()


def verify(content: bytes, keys: PublicKeys, exhibits: Exhibits = NOTHING) -> Finding:
    """Check a certificate.

    Args:
        content: the certificate, as it was handed out.
        keys: the public keys that are trusted.
        exhibits: what it is said to be about.

    Raises:
        OSError: an exhibit cannot be read.
    """
    try:
        opened = unseal(content)
    except NotAnEnvelope as error:
        return Finding(Outcome.NOT_A_CERTIFICATE, f"this is not a DSSE envelope: {error}")
    refused = _refuse_signature(opened, keys)
    if refused is not None:
        return refused
    key_id = opened.signed_by(keys)
    statement = _statement(opened.payload)
    if isinstance(statement, Finding):
        return statement
    return _compare(statement, exhibits, str(key_id))


def _refuse_signature(opened: Opened, keys: PublicKeys) -> Finding | None:
    """Say why the payload is not signed by one of the keys, None where it is."""
    if opened.payload_type != PAYLOAD_TYPE:
        reason = f"the payload is of type {opened.payload_type[:100]!r}, not {PAYLOAD_TYPE!r}"
        return Finding(Outcome.WRONG_PAYLOAD_TYPE, reason)
    if not opened.candidates(keys):
        named = ", ".join(sorted({key_id[:100] or "no key" for key_id, _ in opened.signatures}))
        return Finding(
            Outcome.UNKNOWN_KEY,
            f"it is signed by {named}, which is none of the {len(keys)} keys given",
        )
    if opened.intact is False:
        return Finding(
            Outcome.PAYLOAD_CHANGED,
            "it was changed after it was signed: payload and payloadDigest differ",
        )
    if opened.signed_by(keys) is not None:
        return None
    return Finding(
        Outcome.WRONG_SIGNATURE, "the signature is not one of this payload by the key that it names"
    )


def _statement(payload: bytes) -> Statement | Finding:
    """Read what was signed; fields that are not known here are ignored, as in-toto wants it."""
    try:
        body = json.loads(payload)
        kinds = body["_type"], body["predicateType"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return Finding(Outcome.NOT_A_CERTIFICATE, "what is signed is not an in-toto statement")
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        return Finding(
            Outcome.WRONG_PREDICATE,
            f"the statement is of type {str(kinds[0])[:100]!r} with predicate "
            f"{str(kinds[1])[:100]!r}; this version"
            f" reads {STATEMENT_TYPE!r} with {PREDICATE_TYPE!r}",
        )
    try:
        return Statement.model_validate(body, extra="ignore")
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        field = ".".join(map(str, wrong["loc"]))
        return Finding(
            Outcome.NOT_A_CERTIFICATE,
            f"what is signed is no certificate; field {field}: {wrong['msg']}",
        )


def _compare(statement: Statement, exhibits: Exhibits, key_id: str) -> Finding:
    predicate, weights = statement.predicate, statement.subject[0].digest.sha256

    def found(outcome: Outcome, reason: str) -> Finding:
        return Finding(outcome, reason, key_id, statement)

    if exhibits.weights is not None and (other := file_sha256(exhibits.weights)) != weights:
        return found(
            Outcome.WRONG_WEIGHTS,
            f"the weights have SHA-256 {other}, the certificate is about {weights}",
        )
    certified = predicate.report.digest.sha256
    if exhibits.report is not None and (other := file_sha256(exhibits.report)) != certified:
        return found(
            Outcome.WRONG_REPORT,
            f"the report has SHA-256 {other}, the certificate names {certified}",
        )
    if exhibits.page is not None:
        page = predicate.report.page.sha256 if predicate.report.page else None
        if page is None:
            return found(
                Outcome.WRONG_PAGE,
                "the certificate names no page; it was issued before pages were certified",
            )
        if (other := file_sha256(exhibits.page)) != page:
            return found(
                Outcome.WRONG_PAGE, f"the page has SHA-256 {other}, the certificate names {page}"
            )
    if exhibits.subject is not None and exhibits.subject.reference() != predicate.subject_reference:
        return found(
            Outcome.WRONG_SUBJECT, "the external id is not the one that the certificate refers to"
        )
    if predicate.verdict == "failed":
        return found(
            Outcome.VERDICT_FAILED,
            f"the signature is right, and certifies that {_missed(predicate)}",
        )
    return found(Outcome.VALID, _words(predicate, weights))


def _missed(predicate: Predicate) -> str:
    missed = "; ".join(t.words() for t in predicate.thresholds if not t.passed)
    return f"the weights missed their thresholds: {missed or 'the reason is in the report'}"


def _words(predicate: Predicate, weights: str) -> str:
    purge = predicate.purge
    removal = (
        f"{purge.data_sets} data sets removed, {purge.kept} kept"
        if purge
        else "removal of its data not confirmed"
    )
    return (
        f"weights {weights[:12]}... met all {len(predicate.thresholds)} thresholds; job "
        f"{predicate.job}, issued"
        f" {predicate.issued_at:%Y-%m-%d %H:%M} UTC, {removal}"
    )

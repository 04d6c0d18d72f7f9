"""OpenDSR 2.0 as it goes over the wire (github.com/opengdpr/OpenDSR, specification.md)."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field

from shared.schemas.base import Moment, Schema, printable

API_VERSION = "2.0"
MAX_IDENTITIES = 100
MAX_CALLBACKS = 5

IdentityType = Literal[
    "controller_customer_id",
    "android_advertising_id",
    "android_id",
    "email",
    "fire_advertising_id",
    "ios_advertising_id",
    "ios_vendor_id",
    "microsoft_advertising_id",
    "microsoft_publisher_id",
    "roku_publisher_id",
    "roku_advertising_id",
]
IdentityFormat = Literal["raw", "sha1", "md5", "sha256"]
RequestStatus = Literal["pending", "in_progress", "completed", "cancelled"]

SubjectRequestId = Annotated[
    str,
    Field(
        pattern="^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$"
    ),
    AfterValidator(str.lower),
]
"""A UUID of version 4, which the controller makes (section 1.1). Read in either case (RFC 9562,
section 4), kept and given back in lower case."""


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("has no time zone; write it as 2026-11-02T09:00:00Z")
    return moment


class _Foreign(Schema):
    """What others specify: fields that are not known here are left to those who know them."""

    model_config = ConfigDict(extra="ignore")


class Identity(_Foreign):
    """Who the data subject is (section 5.3). It is read and forgotten."""

    identity_type: IdentityType
    identity_value: Annotated[str, Field(min_length=1, max_length=1000)]
    identity_format: IdentityFormat


class SubjectRequest(_Foreign):
    """The body of `POST /requests` (section 7.1)."""

    regulation: Literal["gdpr", "ccpa"]
    subject_request_id: SubjectRequestId = Field(examples=["a7551968-d5d6-44b2-9831-815ac9017798"])
    subject_request_type: Literal["erasure", "portability", "access"] = Field(
        description="only erasure is fulfilled"
    )
    submitted_time: Annotated[Moment, AfterValidator(_aware)] = Field(
        description="when the data subject asked"
    )
    subject_identities: Annotated[tuple[Identity, ...], Field(max_length=MAX_IDENTITIES)] = ()
    api_version: Annotated[str, Field(max_length=20), AfterValidator(printable)] | None = None
    status_callback_urls: Annotated[
        tuple[Annotated[str, Field(max_length=2000), AfterValidator(printable)], ...],
        Field(max_length=MAX_CALLBACKS),
    ] = ()
    extensions: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="by processor domain; under ours, what to forget in which model: the body of "
        "POST /jobs without "
        "external_id and received_at",
    )


class FormerSubjectRequest(SubjectRequest):
    """The body of `POST /opengdpr_requests`, from when there was one regulation."""

    regulation: Literal["gdpr", "ccpa"] = "gdpr"


class SupportedIdentity(Schema):
    """A pair that requests may name."""

    identity_type: IdentityType
    identity_format: IdentityFormat


class Discovery(Schema):
    """What is supported (section 6.3)."""

    api_version: str = API_VERSION
    supported_identities: tuple[SupportedIdentity, ...]
    supported_subject_request_types: tuple[Literal["erasure"], ...] = ("erasure",)
    processor_certificate: str = Field(
        examples=["https://opendsr.example.com/opendsr/v2/certificate.pem"]
    )
    processor_signature_algorithm: Literal["RSASSA-PKCS1-v1_5 with SHA-256"] = (
        "RSASSA-PKCS1-v1_5 with SHA-256"
    )
    extensions: dict[str, dict[str, str]] = Field(
        description="by domain: the schema of what requests must bring"
    )


class Receipt(Schema):
    """The answer to a request (section 7.3)."""

    controller_id: str
    expected_completion_time: AwareDatetime
    received_time: AwareDatetime
    encoded_request: str = Field(
        description="the request's body in base64, which controllers must not store"
    )
    subject_request_id: str
    api_version: str = API_VERSION


class CancellationReceipt(Schema):
    """The answer to a cancellation (section 9.2)."""

    controller_id: str
    received_time: AwareDatetime
    subject_request_id: str
    api_version: str = API_VERSION


class _Signed(Schema):
    processor_signature: str = Field(
        description="of the body without this field, which is its last; base64"
    )


class SignedReceipt(Receipt, _Signed):
    """The answer to a request, with its signature."""


class SignedCancellationReceipt(CancellationReceipt, _Signed):
    """The answer to a cancellation, with its signature."""


class Status(Schema):
    """How far a request is (section 8.3)."""

    controller_id: str
    expected_completion_time: AwareDatetime
    subject_request_id: str
    request_status: RequestStatus
    api_version: str = API_VERSION
    results_url: str | None = Field(
        None, description="the certificate of the job, once it is completed; needs a key"
    )
    results_count: int | None = None
    extensions: dict[str, dict[str, Any]] = Field(
        description="by domain: the job, its state, and why it failed"
    )


class Callback(Status):
    """What a call-back says (section 8.6)."""

    status_callback_url: str


SUPPORTED_IDENTITIES = tuple(
    SupportedIdentity(identity_type=kind, identity_format=form)
    for kind in get_args(IdentityType)
    for form in get_args(IdentityFormat)
)

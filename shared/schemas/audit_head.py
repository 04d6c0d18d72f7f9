"""Signed heads of the audit log."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from shared.schemas.base import Schema


class HeadStatement(Schema):
    """How long the chain was, and its hash there."""

    log: Literal["efface audit log"] = "efface audit log"
    seq: int = Field(ge=0)
    hash: str = Field(description="SHA-256 of the chain up to and with `seq`, in hexadecimal")
    signed_at: datetime
    key: str = Field(
        description="first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes"
    )


class SignedHead(Schema):
    """A statement with its Ed25519 signature over the statement as canonical JSON (RFC 8785)."""

    statement: HeadStatement
    signature: str = Field(description="base64")

"""What a deployment needs once, before its first request: keys. Doing it again changes nothing."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.access import api_keys
from services.audit_log import signed_heads
from shared.crypto.certificate_keys import KeyFolder, new_secret
from shared.postgres.advisory_locks import lock
from shared.postgres.tables import ApiKey
from shared.settings import Settings
from shared.states import Scope


def prepare(
    session: Session,
    settings: Settings,
    *,
    key_file: Path,
    tenant: str,
    audit_key_file: Path | None = None,
) -> list[str]:
    """Make what is missing of the first API key, the signing keys and the audit key; return what
    was done, a line each.

    The secret is in the file alone: it is neither returned nor logged.

    Args:
        session: its transaction makes the key.
        settings: where signing keys are.
        key_file: of the first API key; made only where there is no key of any tenant.
        tenant: whose key that is.
        audit_key_file: of the key that signs heads of the audit log; none is made if it is None.
    """
    return [
        _api_key(session, key_file, tenant),
        _signing_key(KeyFolder(settings.signing_dir)),
        *([_audit_key(audit_key_file)] if audit_key_file else ()),
    ]


def _api_key(session: Session, file: Path, tenant: str) -> str:
    lock(session, "first_start")  # of two that start at once, one makes the key
    if session.scalar(select(ApiKey.id).limit(1)) is not None:
        return "API keys: there are some already."
    if file.exists():
        file.unlink()  # of a database that is gone: it opens nothing
    key, secret = api_keys.create(session, tenant=tenant, name="first key", scopes=[Scope.ADMIN])
    file.parent.mkdir(parents=True, exist_ok=True)
    new_secret(file, f"{secret}\n".encode())
    return f"API keys: made {key.id} of tenant {tenant}; its secret is in {file}."


def _signing_key(folder: KeyFolder) -> str:
    if folder.has_signer:
        return f"Signing keys: {folder.signer().key_id} signs."
    return f"Signing keys: made {folder.create()} in {folder.folder}."


def _audit_key(file: Path) -> str:
    if file.exists():
        return f"Audit key: there is one in {file}."
    file.parent.mkdir(parents=True, exist_ok=True)
    new_secret(file, signed_heads.new_key().encode())
    return f"Audit key: made in {file}."

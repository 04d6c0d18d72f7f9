"""Commands about certificates: fetch one, check one."""

import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.options import DEFAULT_URL, Key, Url, connect

if TYPE_CHECKING:
    from services.certificates.verification import Subject
    from shared.crypto.public_keys import PublicKeys

WEIGHTS_NAME = "open_clip_model.safetensors"
FETCH_SECONDS = 30.0

Existing = typer.Argument(
    exists=True, dir_okay=False, metavar="CERTIFICATE", help="A certificate, as it was handed out."
)


class VerifyCode(IntEnum):
    """Exit codes of `efface verify`, named after `services.certificates.verification.Outcome`."""

    VALID = 0
    VERDICT_FAILED = 3
    NOT_A_CERTIFICATE = 10
    WRONG_PAYLOAD_TYPE = 11
    UNKNOWN_KEY = 12
    PAYLOAD_CHANGED = 13
    WRONG_SIGNATURE = 14
    WRONG_PREDICATE = 15
    WRONG_WEIGHTS = 16
    WRONG_REPORT = 17
    WRONG_SUBJECT = 18
    WRONG_PAGE = 19


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (certificate, verify):
        app.command()(command)


def certificate(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    number: Annotated[
        int | None, typer.Option(min=1, help="An earlier one of the job; the last one if unset.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Print the certificate of a job that has a verdict, byte for byte."""
    with connect(url, key) as client:
        sys.stdout.buffer.write(client.certificate(job_id, number=number))


def verify(
    certificate: Annotated[Path, Existing],
    weights: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="Check that it is about these: a file, or a local-dir folder."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Check that it is about this report.json."),
    ] = None,
    report_page: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Check that it is about this report.html."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Trust this public key (PEM), or these (a JSON Web Key Set).",
        ),
    ] = None,
    keys_url: Annotated[str | None, typer.Option(help="Trust the keys published there.")] = None,
    external_id: Annotated[
        str | None, typer.Option(help="Check that it is about this external id.")
    ] = None,
    subject_key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="For --external-id: what 'efface keys signing subject' printed.",
        ),
    ] = None,
) -> None:
    """Check a certificate; needs no service. By default this machine's own keys are trusted
    (EFFACE_SIGNING_DIR).

    Exits 0 where it is valid and the verdict passed, 3 where it is valid and certifies a missed
    threshold, and with a code of its own for everything that is wrong: 10 not a certificate, 11
    wrong payload type, 12 unknown key, 13 changed after it was signed, 14 wrong signature, 15
    another kind of statement, 16 other weights, 17 another report, 18 another external id, 19
    another report page."""
    from services.certificates.verification import Exhibits
    from services.certificates.verification import verify as check

    if weights is not None and weights.is_dir():
        weights = weights / WEIGHTS_NAME
    exhibits = Exhibits(
        weights=weights, report=report, page=report_page, subject=_subject(external_id, subject_key)
    )
    finding = check(certificate.read_bytes(), _trusted(key, keys_url), exhibits)
    typer.echo(f"{finding.outcome}: {finding.reason}", err=not finding.holds)
    raise typer.Exit(VerifyCode[finding.outcome.name])


def _trusted(file: Path | None, url: str | None) -> "PublicKeys":
    """Return the public keys that the options name.

    Raises:
        BadParameter: there are none there, or both options are given.
    """
    from shared.crypto.certificate_keys import KeyFolder
    from shared.crypto.public_keys import NotKeys, read_public_keys
    from shared.settings import get_settings

    if file is not None and url is not None:
        raise typer.BadParameter("goes without --keys-url; give one of the two", param_hint="--key")
    try:
        if file is not None:
            return read_public_keys(file.read_bytes())
        if url is not None:
            return read_public_keys(_fetched(url))
        folder = KeyFolder(get_settings().signing_dir)
        keys = folder.public_keys()
    except NotKeys as error:
        raise typer.BadParameter(
            f"{error}", param_hint="--key" if file else "--keys-url"
        ) from error
    if not keys:
        raise typer.BadParameter(
            f"is missing, and {folder.folder} holds no key; or give --keys-url", param_hint="--key"
        )
    return keys


def _fetched(url: str) -> bytes:
    import httpx

    from api.client import Unreachable

    try:
        return httpx.get(url, timeout=FETCH_SECONDS).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(f"the keys cannot be fetched: {error}") from error


def _subject(external_id: str | None, file: Path | None) -> "Subject | None":
    """Return the subject that the options name.

    Raises:
        BadParameter: one option comes without the other, or the file holds no key.
    """
    from services.certificates.verification import Subject
    from shared.crypto.certificate_keys import SubjectKey

    if (external_id is None) != (file is None):
        raise typer.BadParameter("and --subject-key go together", param_hint="--external-id")
    if external_id is None or file is None:
        return None
    try:
        return Subject(external_id, SubjectKey(bytes.fromhex(file.read_text().strip())))
    except ValueError as error:
        raise typer.BadParameter("is no key in hexadecimal", param_hint="--subject-key") from error

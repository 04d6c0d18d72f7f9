"""Commands about evidence: the audit log and the record of processing."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.exits import ExitCode
from api.cli.home import with_home

audit = typer.Typer(
    no_args_is_help=True,
    help="Verify the audit log, sign its head, export the record of processing.",
)

KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        help="Public key (PEM) that heads were signed with; can be repeated. By default ours.",
    ),
]
HeadFiles = Annotated[
    list[Path] | None,
    typer.Option("--head", help="A head that 'efface audit head' printed; can be repeated."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(audit, name="audit")


@audit.command("verify")
@with_home
def verify(key: KeyFiles = None, head: HeadFiles = None) -> None:
    """Compute the whole chain again and check every signed head. Exits 0 where the log is whole,
    4 where it is not.
    """
    from api.cli.opened import opened
    from services.audit_log import chain, signed_heads

    with opened() as (settings, database, storage):
        keys = [signed_heads.public_key(path) for path in key or ()]
        if not keys and settings.audit_key_file is not None:
            keys = [signed_heads.private_key(settings.audit_key_file).public_key()]
        heads = [signed_heads.parse(path.read_bytes(), str(path)) for path in head or ()]
        if (stored := signed_heads.read_stored(storage)) is not None:
            heads.append(stored)
        with database.transaction() as session:
            found = chain.verify(session)
            findings = [
                *found.findings,
                *(signed_heads.check(session, keys, heads) if keys else ()),
            ]
    for finding in findings:
        typer.echo(finding)
    waiting = f", {found.waiting} wait for their place" if found.waiting else ""
    gaps = f", {found.unused_ids} numbers unused" if found.unused_ids else ""
    heads_words = (
        "" if keys else "; heads were not checked: there is no key (EFFACE_AUDIT_KEY_FILE, --key)"
    )
    state = "was altered" if findings else "is whole"
    typer.echo(
        f"The audit log {state}: {found.last.seq} entries, last hash "
        f"{found.last.hash}{waiting}{gaps}{heads_words}."
    )
    if findings:
        raise typer.Exit(ExitCode.LOG_ALTERED)


@audit.command("head")
@with_home
def head() -> None:
    """Sign the end of the log as it is now and print the head, to be kept where this service
    cannot reach it.
    """
    from api.cli.opened import opened
    from services.audit_log import chain, signed_heads
    from shared.errors import Unavailable

    with opened() as (settings, database, _):
        if settings.audit_key_file is None:
            raise Unavailable(
                "EFFACE_AUDIT_KEY_FILE is not set; 'efface audit new-key FILE' makes a key."
            )
        with database.transaction() as session:
            while chain.extend(session):
                pass
            signed = signed_heads.sign(session, signed_heads.private_key(settings.audit_key_file))
            signed = signed or signed_heads.newest(session)
    if signed is not None:
        typer.echo(signed.model_dump_json())


@audit.command("new-key")
def new_key(
    path: Annotated[
        Path, typer.Argument(help="Where the private key goes; the public one is printed.")
    ],
) -> None:
    """Make a key that signs heads."""
    from services.audit_log import signed_heads
    from shared.crypto.certificate_keys import new_secret
    from shared.errors import Conflict

    try:
        new_secret(path, signed_heads.new_key().encode())
    except FileExistsError as error:
        raise Conflict(f"{path} exists already; a key that was used is not replaced.") from error
    typer.echo(signed_heads.public_pem(signed_heads.private_key(path)), nl=False)


@audit.command("record")
@with_home
def record() -> None:
    """Print the record of processing of Article 30(2) GDPR, as JSON."""
    from api.cli.opened import opened
    from services import processing_record

    with opened() as (settings, database, _), database.transaction() as session:
        typer.echo(processing_record.record(session, settings).model_dump_json(indent=2))

"""Commands about what was purged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.exits import ExitCode
from api.cli.home import with_home

if TYPE_CHECKING:
    from services.purging.restored_backups import Purged
    from shared.ports.object_storage import Storage
    from shared.postgres.database import Database

purge = typer.Typer(
    no_args_is_help=True, help="What was purged, and what a restored backup has brought back."
)

From = Annotated[
    Path | None,
    typer.Option(
        "--from", exists=True, dir_okay=False, help="A list that 'efface purge list' has written."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(purge, name="purge")
    app.command()(with_home(sweep))


@purge.command("list")
@with_home
def list_purged() -> None:
    """Print every data set and model that was purged, one a line: keep it where no backup is
    restored over it.
    """
    from api.cli.opened import opened

    with opened() as (_, database, storage):
        for entry in sorted(_listed(database, storage, None)):
            typer.echo(entry.line())


@purge.command("pending")
@with_home
def pending(source: From = None) -> None:
    """Print what was purged and is there again. Exits 1 where there is any."""
    from api.cli.opened import opened
    from services.purging import restored_backups

    with opened() as (_, database, storage):
        listed = _listed(database, storage, source)
        with database.transaction() as session:
            back = restored_backups.pending(session, storage, listed)
    for entry in back:
        typer.echo(entry.line())
    if back:
        raise typer.Exit(ExitCode.FAILURE)


@purge.command("again")
@with_home
def again(source: From = None) -> None:
    """Purge again what a restored backup has brought back; the receipts say so. Twice is no
    error.
    """
    from api.cli.opened import opened
    from services.purging import restored_backups

    with opened() as (settings, database, storage):
        done = restored_backups.purge_again(
            database, storage, settings, _listed(database, storage, source)
        )
    typer.echo(
        f"{done} data sets and models were there again and are purged; leftovers of ended jobs "
        "are "
        "gone."
    )


def sweep(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be deleted.")
    ] = False,
) -> None:
    """Delete objects below tenants/ that no row knows and that are older than a day, and print
    each.

    The relay does the same every EFFACE_SWEEP_SECONDS. Objects under names that the service
    never gives are printed and left alone."""
    from api.cli.opened import opened
    from services.purging import orphans, sweeper

    with opened() as (_, database, storage):
        found = list(orphans.find(database, storage))
        for orphan in found:
            typer.echo(
                f"{orphan.prefix}: {orphans.WORDS[orphan.kind]} ({orphan.objects} objects, "
                f"{orphan.bytes} bytes)"
            )
        ours = [orphan for orphan in found if orphan.kind != "foreign"]
        if not dry_run and ours:
            sweeper.sweep_abandoned(database, storage)
    done = "would be deleted" if dry_run else "were deleted"
    typer.echo(
        f"{len(ours)} things {done}; {len(found) - len(ours)} foreign objects are left alone."
    )


def _listed(database: "Database", storage: "Storage", source: Path | None) -> "set[Purged]":
    from services.purging import restored_backups

    with database.transaction() as session:
        known = restored_backups.purged(session, storage)
    return known | set(restored_backups.parse(source.read_bytes().splitlines()) if source else ())

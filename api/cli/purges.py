"""Commands about what was purged."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.exits import ExitCode

if TYPE_CHECKING:
    from services.purge_list import Purged
    from shared.database import Database
    from shared.storage import Storage

purge = typer.Typer(no_args_is_help=True, help="What was purged, and what a restored backup has brought back.")

From = Annotated[
    Path | None,
    typer.Option("--from", exists=True, dir_okay=False, help="A list that 'efface purge list' has written."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(purge, name="purge")


@purge.command("list")
def list_purged() -> None:
    """Print every data set that was purged, one a line: keep it where no backup is restored over it."""
    from api.cli.opened import opened

    with opened() as (_, database, storage):
        for entry in sorted(_listed(database, storage, None)):
            typer.echo(json.dumps({"dataset": entry.dataset, "tenant": entry.tenant}))


@purge.command("pending")
def pending(source: From = None) -> None:
    """Print what was purged and is there again. Exits 1 where there is any."""
    from api.cli.opened import opened
    from services import purge_list

    with opened() as (_, database, storage):
        listed = _listed(database, storage, source)
        with database.transaction() as session:
            back = purge_list.pending(session, storage, listed)
    for entry in back:
        typer.echo(json.dumps({"dataset": entry.dataset, "tenant": entry.tenant}))
    if back:
        raise typer.Exit(ExitCode.FAILURE)


@purge.command("again")
def again(source: From = None) -> None:
    """Purge again what a restored backup has brought back; the receipts say so. Twice is no error."""
    from api.cli.opened import opened
    from services import purge_list

    with opened() as (settings, database, storage):
        done = purge_list.purge_again(database, storage, settings, _listed(database, storage, source))
    typer.echo(f"{done} data sets were there again and are purged; leftovers of ended jobs are gone.")


def _listed(database: "Database", storage: "Storage", source: Path | None) -> "set[Purged]":
    from services import purge_list

    with database.transaction() as session:
        known = purge_list.purged(session, storage)
    return known | set(purge_list.parse(source.read_bytes().splitlines()) if source else ())

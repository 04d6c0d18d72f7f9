"""Backup and restore."""

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Of the service that 'efface up' runs or ran in this folder."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (backup, restore):
        app.command()(command)


def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    home: HomeOption = None,
) -> None:
    """Copy Postgres and the objects into a folder; the service may run. Keys are not copied:
    keep them elsewhere.
    """
    from api.backup import back_up, settings_of
    from shared.settings import get_settings

    if home is None:
        manifest = back_up(get_settings(), folder)
    else:
        with settings_of(home, stopped=False) as settings:
            manifest = back_up(settings, folder)
    typer.echo(
        f"{folder} holds Postgres and {manifest.objects} objects ({manifest.bytes} bytes), but "
        "no "
        "keys."
    )
    if home is not None:
        typer.echo(
            f"Keep apart from it: {home / 'master-key'}, {home / 'audit-key.pem'}, "
            f"{home / 'signing'}."
        )


def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A backup.")
    ],
    home: HomeOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where there are jobs already, which then go.")
    ] = False,
) -> None:
    """Put a backup in the place of what is there, and purge again what was purged since. The
    service must be stopped.
    """
    from api.backup import empty_redis, settings_of
    from api.backup import restore as put_back
    from shared.settings import get_settings

    if home is None:
        purged = put_back(get_settings(), folder, replace=replace)
    else:
        with settings_of(home, stopped=True) as settings:
            purged = put_back(settings, folder, replace=replace)
        empty_redis(home)
    typer.echo(
        f"{folder} is restored. {purged} data sets and models that were purged since are "
        "purged "
        "again."
    )
    typer.echo(
        "Next: efface audit verify --head KEPT.json says what the log has lost; then start the "
        "service."
    )

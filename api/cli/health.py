"""`efface health`: does the process of a kind on this machine live? For the health checks of
containers.
"""

import socket
from typing import Annotated

import typer

from api.cli.exits import ExitCode


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(health)


def health(
    kind: Annotated[str, typer.Argument(metavar="relay|worker", help="Which process.")],
    host: Annotated[
        str, typer.Option(help="The machine or container that it runs in; this one by default.")
    ] = "",
) -> None:
    """Say whether the relay or worker on this machine has shown life lately. Exits 0 where it
    has, 1 where it has not.
    """
    from api.cli.opened import transaction
    from services.fleet.health import silent_here
    from shared.states import ProcessKind

    if kind not in set(ProcessKind):
        raise typer.BadParameter(
            f"is {kind!r}; it must be one of {', '.join(ProcessKind)}", param_hint="KIND"
        )
    with transaction() as session:
        reason = silent_here(session, ProcessKind(kind), host or socket.gethostname())
    typer.echo(reason or "up", err=reason is not None)
    raise typer.Exit(ExitCode.FAILURE if reason else ExitCode.OK)

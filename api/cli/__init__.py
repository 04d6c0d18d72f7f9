"""The command line. Modules that a command needs are imported when it runs, so that `efface --help` is quick."""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from api.cli import client, server
from api.cli.exits import explain

COMMANDS = "efface.commands"
"""Entry point group in which other packages register commands: functions with Typer's annotations."""


class Commands(TyperGroup):
    """Our commands, and those that other packages bring along, which are imported only when they are named."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *entry_points(group=COMMANDS).names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        for entry in entry_points(group=COMMANDS, name=cmd_name):
            return _load(entry)
        return super().get_command(ctx, cmd_name)


def _load(entry: EntryPoint) -> Any:
    """Import a registered command; where its packages are missing, one that says so takes its place."""
    try:
        function = entry.load()
    except ImportError as error:
        function = _missing(entry.name, str(error))
    single = typer.Typer(add_completion=False)
    single.command(entry.name)(function)
    return typer.main.get_command(single)


def _missing(name: str, reason: str) -> Any:
    def command() -> None:
        typer.echo(f"efface {name}: {reason}. Install it with: pip install 'efface[worker]'", err=True)
        raise typer.Exit(1)

    command.__doc__ = "(not installed here)"
    return command


app = typer.Typer(
    cls=Commands,
    help="Make a CLIP model forget, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
server.add_commands(app)
client.add_commands(app)


def main() -> None:
    """Run the command line. Errors are one line on stderr and an exit code, never a traceback."""
    try:
        app()
    except Exception as error:
        message, code = explain(error)
        typer.echo(f"efface: {message}", err=True)
        sys.exit(code)

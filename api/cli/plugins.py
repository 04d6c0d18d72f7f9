"""Commands that other packages bring along: neither door imports the other."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

GROUP = "efface.commands"
"""Entry points of this group are functions, with arguments as Typer wants them."""


class Commands(TyperGroup):
    """Our own commands, and those of the entry points. One is imported when it is named, or
    listed by --help.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer's context class has no stable place
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *sorted(entry_points(group=GROUP).names)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as above
        """Return a command."""
        for entry in entry_points(group=GROUP, name=cmd_name):
            single = typer.Typer(add_completion=False)
            single.command(entry.name)(_load(entry))
            return typer.main.get_command(single)
        return super().get_command(ctx, cmd_name)


def _load(entry: EntryPoint) -> Callable[..., None]:
    """Import a command; where it cannot be imported, one that says so takes its place."""
    try:
        command: Callable[..., None] = entry.load()
        return command
    except (ImportError, AttributeError) as error:
        reason = str(error)

    def missing() -> None:
        """(not installed here)"""
        typer.echo(f"efface {entry.name}: {reason}; run: pip install 'efface[worker]'", err=True)
        raise typer.Exit(1)

    return missing

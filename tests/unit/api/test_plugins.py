"""Commands of other packages."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest
import typer
from typer.testing import CliRunner

from api.cli import plugins

GREETING = 'def hello(name: str) -> None:\n    """Say hello."""\n    print("hello", name)\n'


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """A command line with one command of its own, one that a package brings, and one that cannot be imported."""
    (tmp_path / "greeting.py").write_text(GREETING)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = {"hello": "greeting:hello", "broken": "no_such_package:run"}
    installed = EntryPoints(EntryPoint(name, value, plugins.GROUP) for name, value in commands.items())
    monkeypatch.setattr(plugins, "entry_points", installed.select)
    app = typer.Typer(cls=plugins.Commands, add_completion=False)
    app.command()(own)
    app.command()(other)
    return app


def own() -> None:
    """Do what this package does."""
    typer.echo("own")


def other() -> None:
    """Do something else."""


def test_a_command_of_another_package_runs_with_its_arguments(command_line):
    assert CliRunner().invoke(command_line, ["hello", "Ada"]).stdout == "hello Ada\n"


def test_our_own_commands_stay(command_line):
    assert CliRunner().invoke(command_line, ["own"]).stdout == "own\n"


def test_what_cannot_be_imported_says_so_in_one_line(command_line):
    done = CliRunner().invoke(command_line, ["broken"])

    assert done.exit_code == 1
    assert done.stderr == "efface broken: No module named 'no_such_package'; run: pip install 'efface[worker]'\n"


def test_help_lists_all_of_them(command_line):
    listed = CliRunner().invoke(command_line, ["--help"]).stdout

    assert "Say hello." in listed
    assert "(not installed here)" in listed

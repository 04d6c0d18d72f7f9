"""The command line. What a command needs is imported when it runs, so that `efface --help` is
quick.

Exit codes: 0 done (a job: passed), 1 failed, 2 bad input, 3 a job missed a threshold,
4 the audit log was altered; `verify` has more.
"""

import sys

import typer

from api.cli import (
    audit,
    backups,
    certificates,
    deltas,
    health,
    jobs,
    keys,
    purges,
    rulings,
    service,
    uploads,
)
from api.cli.exits import explain
from api.cli.plugins import Commands
from api.cli.signing import signing

app = typer.Typer(
    cls=Commands,
    help="Make a CLIP model forget, and measure that it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (
    service,
    keys,
    jobs,
    rulings,
    certificates,
    deltas,
    uploads,
    audit,
    purges,
    backups,
    health,
):
    module.add_to(app)
keys.keys.add_typer(signing, name="signing")


def main() -> None:
    """Run the command line. An error is one line on stderr and an exit code, never a traceback."""
    try:
        app()
    except Exception as error:
        message, code = explain(error)
        typer.echo(f"efface: {message}", err=True)
        sys.exit(code)

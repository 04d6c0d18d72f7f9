"""The commands that this package brings to `efface`. Thin: torch and Celery are imported when a
command runs.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import EffaceError, InvalidRequest
from shared.home import use

BAD_INPUT, FAILED = 2, 1


def run(
    request: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST.json", help="what POST /jobs takes; data sets and models by path"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="where report.json, report.html, certificate.json and model/ (or quarantine/) go"
        ),
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> None:
    """Run a request in this process, with no server. Exits 0 when the verdict is passed, 3 when
    a threshold is missed.
    """
    from shared.request_rules.request_file import read_request
    from shared.settings import get_settings
    from worker.resolve import resolve_paths

    try:
        spec = resolve_paths(read_request(request)[1], get_settings())
        from worker.data_parallel import is_main
        from worker.run_command import (
            run as run_request,
        )  # torch, which takes its time: a request may be wrong

        for warning in spec.warnings if is_main() else ():
            print(f"efface: warning: {warning.pointer}: {warning.detail}", file=sys.stderr)  # noqa: T201
        code = run_request(spec, out, device)
    except EffaceError as error:
        print(f"efface: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT if isinstance(error, InvalidRequest) else FAILED) from error
    if is_main():
        print(f"{'passed' if code == 0 else 'failed'}: {out / 'report.json'}")  # noqa: T201
    raise typer.Exit(code)


def worker(
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="work for the service that 'efface up' runs in this folder"
        ),
    ] = None,
) -> None:
    """Run a worker: it takes jobs from the queue, one at a time. SIGTERM gives a running job
    back and ends it.
    """
    if home is not None:
        use(home)
    os.execv(sys.executable, [sys.executable, "-m", "worker"])  # noqa: S606 - the worker's memory holds no command line

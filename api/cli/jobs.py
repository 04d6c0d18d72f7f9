"""Commands about jobs."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from api.cli.exits import THRESHOLDS_NOT_MET, ExitCode
from api.cli.options import DEFAULT_URL, Key, Url, connect


class Layout(StrEnum):
    """How a model's folder is laid out."""

    OPEN_CLIP = "open_clip"
    TRANSFORMERS = "transformers"


RequestFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="An erasure request, as JSON.")
]
JobId = Annotated[str, typer.Argument(help="The job's id.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (submit, jobs, job, report, weights, cancel):
        app.command()(command)


def submit(
    request: RequestFile,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Submit an erasure request; data sets and a model that it gives by a local path are
    uploaded first.
    """
    from api.cli import show
    from api.cli.local_files import check, with_ids
    from shared.request_rules.request_file import read_request

    body, wanted = read_request(request)
    with connect(url, key) as client:
        check(wanted, client)  # before anything is uploaded
        queued = client.submit(with_ids(body, client))
        show.warnings(queued)
        typer.echo(queued.id)
        if not wait:
            return
        ended = show.follow(client.watch(queued.id))
        if ended.verdict is not None:
            show.out.print(show.report_table(client.report(ended.id)))
        show.out.print(f"{ended.state}{f': {ended.error.message}' if ended.error else ''}")
    if ended.state != "succeeded":
        missed = ended.error is not None and ended.error.code == THRESHOLDS_NOT_MET
        raise typer.Exit(ExitCode.THRESHOLD_MISSED if missed else ExitCode.FAILURE)


def jobs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """List jobs."""
    from itertools import islice

    from api.cli import show

    with connect(url, key) as client:
        filters = {"state": state} if state else {}
        show.out.print(show.jobs_table(islice(client.jobs(**filters), limit)))


def job(job_id: JobId, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Show a job, as JSON."""
    with connect(url, key) as client:
        typer.echo(client.job(job_id).model_dump_json(indent=2, exclude_unset=True))


def report(
    job_id: JobId,
    html: Annotated[
        bool, typer.Option("--html", help="The page for people, e.g. > report.html")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Print the report of a job that has ended, as JSON or as a page, byte for byte."""
    with connect(url, key) as client:
        if html:
            typer.echo(client.report_page(job_id), nl=False)
            return
        sys.stdout.buffer.write(client.report_file(job_id))


def weights(
    job_id: JobId,
    out: Annotated[
        Path, typer.Option(help="Folder to write; open_clip loads it as local-dir:<folder>.")
    ],
    layout: Annotated[
        Layout,
        typer.Option("--format", help="open_clip's local-dir layout, or transformers' CLIPModel."),
    ] = (Layout.OPEN_CLIP),
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Download the published model, in open_clip's local-dir layout or as a CLIPModel of
    transformers.
    """
    import tempfile

    from api.cli import show
    from shared.weights.converted import to_transformers

    with (
        tempfile.TemporaryDirectory(prefix="efface-weights-") as scratch,
        connect(url, key) as client,
        show.transfer("downloading", None) as advance,
    ):
        folder = out if layout is Layout.OPEN_CLIP else Path(scratch) / "model"
        client.weights(job_id, folder, advance=advance)
        if layout is Layout.TRANSFORMERS:
            to_transformers(folder, out)
    typer.echo(out)


def cancel(job_id: JobId, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Cancel a job; doing it twice is no error."""
    with connect(url, key) as client:
        cancelled = client.cancel(job_id)
    typer.echo(
        f"{cancelled.id} {'is cancelled' if cancelled.state.final else 'will end within seconds'}"
    )

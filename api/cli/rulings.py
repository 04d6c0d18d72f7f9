"""Commands with which a controller rules on a request."""

from typing import Annotated

import typer

from api.cli.jobs import JobId
from api.cli.options import DEFAULT_URL, Key, Url, connect

WhyHeld = Annotated[str, typer.Option(help="What is in doubt; kept with the job, so name nobody.")]
WhyExtended = Annotated[
    str, typer.Option(help="Why it takes longer; kept with the job, so name nobody.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (hold, release, extend, refuse):
        app.command()(command)


def hold(job_id: JobId, reason: WhyHeld, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Stop the clock of a queued job while the data subject's identity is in doubt."""
    with connect(url, key) as client:
        client.hold(job_id, reason)
    typer.echo(f"{job_id} is on hold")


def release(job_id: JobId, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Let a job that is on hold go on."""
    with connect(url, key) as client:
        typer.echo(f"{job_id} is due at {client.release(job_id).due_at}")


def extend(job_id: JobId, reason: WhyExtended, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Extend the period of a job by two further months."""
    with connect(url, key) as client:
        typer.echo(f"{job_id} is due at {client.extend(job_id, reason).due_at}")


def refuse(
    job_id: JobId,
    ground: Annotated[
        str, typer.Option(help="E.g. manifestly_unfounded, legal_obligation; see the API guide.")
    ],
    detail: Annotated[
        str | None, typer.Option(help="A sentence for the file; name nobody.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Refuse an erasure; the job is cancelled and says on what ground."""
    with connect(url, key) as client:
        client.refuse(job_id, ground, detail)
    typer.echo(f"{job_id} is refused")

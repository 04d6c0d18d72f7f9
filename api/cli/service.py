"""Commands that run the service, or the parts of it."""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from api.cli.home import with_home

Home = Annotated[
    Path, typer.Option(help="Where everything is kept: databases, objects, logs and the API key.")
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the API on 127.0.0.1; 0 takes a free one.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    plain: tuple[Callable[..., None], ...] = (up, demo, version)
    operated: tuple[Callable[..., None], ...] = (api, relay, migrate, init)
    for command in (*plain, *map(with_home, operated)):
        app.command()(command)


def up(home: Home = Path(".efface"), port: Port = 8080) -> None:
    """Run the whole service on this machine, until Ctrl-C."""
    from api.processes import Ending
    from api.stack import running, signing_dir
    from shared.crypto.certificate_keys import KeyFolder
    from shared.settings import get_settings
    from shared.telemetry import configure_logging

    configure_logging(
        get_settings().model_copy(update={"log_format": "console", "log_level": "WARNING"})
    )
    ending = Ending()
    ending.listen()
    unsigned = not KeyFolder(signing_dir(home)).has_signer
    with suppress(KeyboardInterrupt), running(home, port, ending) as stack:
        typer.echo(f"Efface is ready at {stack.url}; Ctrl-C stops it.")
        typer.echo(f"Console: {stack.sign_in_link()}")
        minutes = stack.settings.console_link_seconds // 60
        typer.echo(
            f"  This link signs in once, within {minutes} minutes; 'efface keys link' makes "
            "another one."
        )
        typer.echo(f"API key: in {stack.key_file}")
        made = ", made now" if unsigned else ""
        typer.echo(
            f"Certificates: signed with key {stack.signing_key} in {stack.signing_dir}{made}"
        )
        typer.echo(f"Logs: {stack.home / 'logs'}")
        typer.echo(f"Other commands reach it with --home, as in: efface keys list --home {home}")
        try:
            stack.tend()
        except KeyboardInterrupt:
            typer.echo(
                "Stopping; a job that runs goes on at the next start. Ctrl-C again stops at once."
            )


def demo(
    home: Annotated[
        Path | None,
        typer.Option(help="Where the service keeps everything; by default a temporary folder."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where reports, certificates and weights go.")] = Path(
        "efface-demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder.")] = False,
) -> None:
    """Start the service and let it forget a class and a subgroup of the demo's own drawings."""
    from api.demo.scenario import run_demo

    if not run_demo(home=home, out=out, keep=keep):
        raise typer.Exit(1)


def api() -> None:
    """Run the HTTP API (settings: EFFACE_HOST, EFFACE_PORT, ...)."""
    import tempfile

    from api.app import create_app
    from api.server import serve
    from shared.scratch import scratch_folder
    from shared.settings import get_settings
    from shared.telemetry import configure_logging

    settings = get_settings()
    configure_logging(settings)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit()
    )  # uvicorn raises it again when it has shut down
    with scratch_folder("api") as scratch:
        tempfile.tempdir = str(scratch)  # uploads lie there unsealed while they are checked
        serve(create_app(settings), settings)


def relay() -> None:
    """Carry jobs from Postgres to the queue, take back those of lost workers, delete leftovers,
    sign certificates.
    """
    from services.relay import run_relay
    from shared.ports.object_storage import Storage
    from shared.ports.queue import Doorbell, make_queue
    from shared.postgres.database import Database, make_engine
    from shared.settings import get_settings
    from shared.telemetry import configure_logging

    settings = get_settings()
    configure_logging(settings)
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    storage = Storage(settings.storage_url, settings.storage_public_endpoint)
    engine = make_engine(settings)
    run_relay(Database(engine), Doorbell(make_queue(settings)), storage, settings, ending)
    engine.dispose()


def migrate() -> None:
    """Bring the database's schema to this version; doing it twice is no error."""
    import migrations
    from shared.settings import get_settings

    settings = get_settings()
    migrations.upgrade(settings.sqlalchemy_url())
    typer.echo("The schema is that of this version.")
    if settings.database_service_role is not None:
        from migrations.grants import grant

        grant(settings.sqlalchemy_url(), settings.database_service_role)
        typer.echo(f"The role {settings.database_service_role} has what the service needs.")


def init(
    key_file: Annotated[
        Path, typer.Option(help="Where the first API key goes, readable for its owner alone.")
    ],
    tenant: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    audit_key_file: Annotated[
        Path | None,
        typer.Option(
            help="Where the key that signs the head of the audit log goes, if it is to be made."
        ),
    ] = None,
) -> None:
    """Make what a deployment needs once: the first API key, the signing keys, the audit key.
    What is there stays; idempotent.
    """
    from api.cli.opened import transaction
    from services import first_start
    from shared.settings import get_settings

    with transaction() as session:
        done = first_start.prepare(
            session, get_settings(), key_file=key_file, tenant=tenant, audit_key_file=audit_key_file
        )
    for line in done:
        typer.echo(line)


def version() -> None:
    """Say which version this is."""
    from api import VERSION

    typer.echo(VERSION)

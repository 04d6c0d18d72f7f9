"""Commands that run the service, or the parts of it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from shared.states import Scope


Home = Annotated[Path, typer.Option(help="Where everything is kept: databases, objects, logs and the API key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the API on 127.0.0.1; 0 takes a free one.")]

keys = typer.Typer(
    no_args_is_help=True, help="Make, list and revoke API keys; and, below signing, the keys of certificates."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (up, demo, api, relay, migrate, version):
        app.command()(command)
    app.add_typer(keys, name="keys")


def up(home: Home = Path(".efface"), port: Port = 8080) -> None:
    """Run the whole service on this machine, until Ctrl-C."""
    from api.processes import Ending
    from api.stack import key_file, running, signing_dir
    from shared.settings import get_settings
    from shared.signing import KeyFolder
    from shared.telemetry import configure_logging

    configure_logging(get_settings().model_copy(update={"log_format": "console", "log_level": "WARNING"}))
    ending = Ending()
    ending.listen()
    first = not key_file(home).exists()
    unsigned = not KeyFolder(signing_dir(home)).has_signer
    with suppress(KeyboardInterrupt), running(home, port, ending) as stack:
        typer.echo(f"Efface is ready at {stack.url}; Ctrl-C stops it.")
        typer.echo(f"API key: {f'{stack.key}, kept in' if first else 'in'} {stack.key_file}")
        made = ", made now" if unsigned else ""
        typer.echo(f"Certificates: signed with key {stack.signing_key} in {stack.signing_dir}{made}")
        typer.echo(f"Logs: {stack.home / 'logs'}")
        try:
            stack.tend()
        except KeyboardInterrupt:
            typer.echo("Stopping; a job that runs goes on at the next start. Ctrl-C again stops at once.")


def demo(
    home: Annotated[
        Path | None, typer.Option(help="Where the service keeps everything; by default a temporary folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where reports, certificates and weights go.")] = Path("efface-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder.")] = False,
) -> None:
    """Start the service and let it forget a class and a subgroup of the demo's own drawings."""
    from api.demo.scenario import run_demo

    if not run_demo(home=home, out=out, keep=keep):
        raise typer.Exit(1)


def api() -> None:
    """Run the HTTP API (settings: EFFACE_HOST, EFFACE_PORT, ...)."""
    import uvicorn

    from api.app import create_app
    from shared.settings import get_settings
    from shared.telemetry import configure_logging

    settings = get_settings()
    configure_logging(settings)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,  # ours
        access_log=False,  # `Boundary` writes one
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def relay() -> None:
    """Carry jobs from Postgres to the queue, take back those of lost workers, delete leftovers, sign certificates."""
    from services.relay import run_relay
    from shared.database import Database, make_engine
    from shared.queue import Doorbell, make_queue
    from shared.settings import get_settings
    from shared.storage import Storage
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

    migrations.upgrade(get_settings().sqlalchemy_url())
    typer.echo("The schema is that of this version.")


def version() -> None:
    """Say which version this is."""
    from api import VERSION

    typer.echo(VERSION)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose key it is; made if there is none of this name.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do, e.g. jobs:read; can be repeated.")] = None,
) -> None:
    """Make a key (by default with scope admin) and print it, this once."""
    from services import keys as service

    with transaction() as session:
        key, plaintext = service.create(session, tenant=tenant, name=name, scopes=_scopes(scope or ["admin"]))
        key_id = key.id
    typer.echo(plaintext)
    typer.echo(f"{key_id} of tenant {tenant}; the key is shown this once and kept nowhere.", err=True)


@keys.command("list")
def list_keys() -> None:
    """List all keys; what they are made of is kept nowhere."""
    from api.cli.show import out, table
    from services import keys as service

    rows = table("id", "tenant", "name", "scopes", "created", "revoked")
    with transaction() as session:
        for key, tenant in service.list_keys(session):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
            rows.add_row(key.id, tenant, key.name, ", ".join(key.scopes), f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    out.print(rows)


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """Revoke a key, at once; doing it twice is no error."""
    from services import keys as service

    with transaction() as session:
        service.revoke(session, key_id)
    typer.echo(f"{key_id} is revoked.")


@contextmanager
def transaction() -> Iterator["Session"]:
    """Give a session on the database of the settings."""
    from shared.database import Database, make_engine
    from shared.settings import get_settings

    engine = make_engine(get_settings())
    try:
        with Database(engine).transaction() as session:
            yield session
    finally:
        engine.dispose()


def _scopes(names: list[str]) -> list["Scope"]:
    from shared.states import Scope

    known = [scope.value for scope in Scope]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--scope")
    return [Scope(name) for name in names]

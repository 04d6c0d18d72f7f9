"""Commands about API keys, for the operator: they speak to the database, and to every tenant."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.home import with_home
from api.cli.opened import transaction

if TYPE_CHECKING:
    from shared.states import Scope

keys = typer.Typer(
    no_args_is_help=True,
    help="Make, list, rotate and revoke API keys; and, below signing, the keys of certificates.",
)

KeyId = Annotated[str, typer.Argument(help="The key's id.")]
Days = Annotated[
    float | None, typer.Option(min=0, help="Days until it expires; by default it never does.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(keys, name="keys")


@keys.command("create")
@with_home
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    tenant: Annotated[
        str, typer.Option(help="Whose key it is; made if there is none of this name.")
    ] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do, e.g. jobs:read; can be repeated.")
    ] = None,
    expires_days: Days = None,
) -> None:
    """Make a key (by default with scope admin) and print it, this once."""
    from services.access import api_keys as service

    scopes = _scopes(scope or ["admin"])
    with transaction() as session:
        key, secret = service.create(
            session, tenant=tenant, name=name, scopes=scopes, expires_at=_end(expires_days)
        )
        key_id = key.id
    typer.echo(secret)
    typer.echo(
        f"{key_id} of tenant {tenant}; the key is shown this once and kept nowhere.", err=True
    )


@keys.command("link")
@with_home
def make_link(
    key_id: KeyId,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="EFFACE_URL",
            help="Address of the service, where EFFACE_PUBLIC_URL does not say.",
        ),
    ] = None,
) -> None:
    """Make a link that signs one person in to the console with this key, once, and print it."""
    from services.access import console_sessions
    from shared.settings import get_settings

    settings = get_settings()
    base = url or settings.public_url or f"http://{settings.host}:{settings.port}"
    with transaction() as session:
        link = console_sessions.make_link(session, key_id, settings.console_link_seconds)
    typer.echo(f"{base.rstrip('/')}/console/sign-in?link={link}")
    typer.echo(f"It works once, within {settings.console_link_seconds // 60} minutes.", err=True)


@keys.command("list")
@with_home
def list_keys() -> None:
    """List all keys; what they are made of is kept nowhere."""
    from api.cli.show import out, table
    from services.access import api_keys as service

    rows = table(
        "id", "tenant", "name", "scopes", "created", "expires", "revoked", "old secret until"
    )
    with transaction() as session:
        for key, tenant in service.list_keys(session):
            times = (key.created_at, key.expires_at, key.revoked_at, key.previous_expires_at)
            rows.add_row(key.id, tenant, key.name, ", ".join(key.scopes), *map(_minute, times))
    out.print(rows)


@keys.command("rotate")
@with_home
def rotate_key(
    key_id: KeyId,
    grace_hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="How long the old secret still works; by default EFFACE_KEY_GRACE_SECONDS."
        ),
    ] = None,
    expires_days: Annotated[
        float | None,
        typer.Option(min=0, help="Days until it expires; by default when it would have anyway."),
    ] = None,
) -> None:
    """Give a key a new secret and print it, this once; the old one works for a while."""
    from services.access import api_keys as service
    from shared.settings import get_settings

    grace = get_settings().key_grace_seconds if grace_hours is None else grace_hours * 3600
    with transaction() as session:
        key, secret = service.rotate(
            session, key_id, grace_seconds=grace, expires_at=_end(expires_days)
        )
        until = _minute(key.previous_expires_at)
    typer.echo(secret)
    typer.echo(
        f"{key_id} has a new secret, shown this once; the old one works until {until}.", err=True
    )


@keys.command("revoke")
@with_home
def revoke_key(
    key_id: KeyId,
    with_children: Annotated[
        bool,
        typer.Option(
            "--with-children",
            help="Also the keys that it made or rotated, and those that these did.",
        ),
    ] = False,
) -> None:
    """Revoke a key and its access tokens, at once; doing it twice is no error."""
    from services.access import api_keys as service

    with transaction() as session:
        if with_children:
            revoked = [key.id for key in service.revoke_with_children(session, key_id)]
        else:
            revoked = [service.revoke(session, key_id).id]
    for revoked_id in revoked:
        typer.echo(f"{revoked_id} is revoked.")


@keys.command("rewrap")
@with_home
def rewrap() -> None:
    """Seal all that is sealed under the first key in EFFACE_MASTER_KEY; then the older ones can
    go.
    """
    from services.catalog import datasets
    from services.jobs import job_keys
    from services.webhooks import endpoints
    from shared.settings import get_settings

    with transaction() as session:
        data_keys = datasets.rewrap(session, get_settings()) + job_keys.rewrap(
            session, get_settings()
        )
        secrets = endpoints.rewrap(session, get_settings())
    typer.echo(
        f"{data_keys} data keys and {secrets} webhook secrets are sealed under the first "
        "master "
        "key."
    )


def _end(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _minute(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}Z" if time else ""


def _scopes(names: list[str]) -> list["Scope"]:
    from shared.states import Scope

    known = [scope.value for scope in Scope]
    for name in names:
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is none of {', '.join(known)}", param_hint="--scope"
            )
    return [Scope(name) for name in names]

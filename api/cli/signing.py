"""Commands about the keys that sign certificates. (`efface keys` without `signing` is about API
keys.)
"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.opened import transaction

if TYPE_CHECKING:
    from shared.crypto.certificate_keys import KeyFolder

signing = typer.Typer(
    no_args_is_help=True, help="Make, list, rotate and revoke the keys that sign certificates."
)


@signing.command("create")
def create() -> None:
    """Make the first signing key, in the folder EFFACE_SIGNING_DIR."""
    folder = _folder()
    typer.echo(f"{folder.create()} signs certificates from now on; it is in {folder.folder}.")


@signing.command("list")
def list_keys() -> None:
    """List the keys in the folder, oldest first."""
    from api.cli.show import out, table

    folder = _folder()
    current = folder.signer().key_id if folder.has_signer else None
    rows = table("id", "use")
    for key_id in folder.public_keys():
        rows.add_row(key_id, "signs" if key_id == current else "verifies")
    out.print(rows)


@signing.command("rotate")
def rotate() -> None:
    """Replace the signing key. The old public key stays, so that what it signed can be checked."""
    old, new = _folder().rotate()
    typer.echo(f"{new} signs certificates from now on; {old} only verifies.")


@signing.command("revoke")
def revoke(key_id: str) -> None:
    """Publish a key no longer, e.g. one that was stolen: its certificates count as signed by
    nobody.
    """
    from services.certificates import signing_keys
    from shared.errors import Conflict

    folder = _folder()
    if folder.has_signer and folder.signer().key_id == key_id:
        raise Conflict(
            "This key signs; 'efface keys signing rotate' replaces it, then it can be revoked."
        )
    with transaction() as session:
        signing_keys.revoke(session, key_id)
    folder.forget(key_id)
    typer.echo(f"{key_id} is revoked.")


@signing.command("export")
def export() -> None:
    """Print the folder's public keys as a JSON Web Key Set, for 'efface verify --key' elsewhere."""
    from shared.crypto.public_keys import jwk_set

    typer.echo(json.dumps(jwk_set(_folder().public_keys()), indent=2))


@signing.command("subject")
def subject(tenant: Annotated[str, typer.Argument(help="The tenant's name.")] = "default") -> None:
    """Print the key under which a tenant's external ids are hashed. It is a secret: it tells
    whom certificates are about.
    """
    typer.echo(_folder().subject_key(tenant).key.hex())


def _folder() -> "KeyFolder":
    from shared.crypto.certificate_keys import KeyFolder
    from shared.settings import get_settings

    return KeyFolder(get_settings().signing_dir)

"""Options that several commands have, and the client that they lead to."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from api.client import Client

Url = Annotated[str, typer.Option(envvar="EFFACE_URL", help="Address of the service.")]
Key = Annotated[
    str, typer.Option(envvar="EFFACE_API_KEY", help="API key; 'efface keys create' makes one.")
]
DEFAULT_URL = "http://127.0.0.1:8080"


def connect(url: str, key: str) -> "Client":
    """Return a client.

    Raises:
        BadParameter: there is no key.
    """
    from api.client import Client

    if not key:
        raise typer.BadParameter(
            "is missing; give an API key with --key, or in EFFACE_API_KEY", param_hint="--key"
        )
    return Client(url, key)

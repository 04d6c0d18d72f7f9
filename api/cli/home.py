"""`--home`, for commands that speak to the database: of the service that `efface up` runs."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

FromHome = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help=(
            "Use the service that 'efface up' runs in this folder, in place of the one that "
            "EFFACE_* variables name."
        ),
    ),
]


def with_home(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option `--home`."""

    @wraps(command)
    def with_option(*arguments: Any, home: Path | None = None, **options: Any) -> None:  # noqa: ANN401 - the command's own
        if home is not None:
            from shared.home import use

            use(home)
        command(*arguments, **options)

    signature = inspect.signature(command)
    option = inspect.Parameter(
        "home", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=FromHome
    )
    parameters = [*signature.parameters.values(), option]
    with_option.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
    with_option.__annotations__ = {**command.__annotations__, "home": FromHome}
    return with_option

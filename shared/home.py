"""The settings of a service that `efface up` runs, for commands that speak to its database: kept
in its home while it runs.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from shared.errors import Conflict
from shared.settings import get_settings

NAME = "env"
OWNER_ONLY = 0o600


def write(home: Path, values: Mapping[str, str]) -> Path:
    """Write settings into a home, for its owner's eyes alone, as a shell reads them too; return
    the file.
    """
    file = home / NAME
    file.unlink(missing_ok=True)
    file.touch(OWNER_ONLY)
    file.write_text(
        "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))
    )
    return file


def read(home: Path) -> dict[str, str]:
    """Return the settings of the service that runs in a home.

    Raises:
        Conflict: none runs there.
    """
    try:
        text = (home.expanduser() / NAME).read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Conflict(
            f"No service runs in {home}; start it with 'efface up --home {home}'."
        ) from error
    lines = (shlex.split(line)[0].partition("=") for line in text.splitlines() if line.strip())
    return {name: value for name, _, value in lines}


def use(home: Path) -> None:
    """Have this process, and those that it starts, use the settings of the service that runs in a
    home.

    Raises:
        Conflict: none runs there.
    """
    os.environ.update(read(home))
    get_settings.cache_clear()

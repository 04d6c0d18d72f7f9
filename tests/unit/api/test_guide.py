"""The API guide shows a curl for every call that there is, and for none that is not."""

import re
import shlex
from pathlib import Path

from api.app import create_app
from shared.settings import Settings

GUIDE = Path(__file__).parents[3] / "docs" / "api.md"
COMMAND = re.compile(r"^\$ curl .*$", re.MULTILINE)
SENDS = ("-d", "--data-binary", "-F")


def call(command: str) -> tuple[str, str]:
    """Return the method and the path of a curl, every variable in the path as `{}`."""
    words = shlex.split(command)
    (address,) = (word for word in words if word.startswith("$A/"))
    path = re.sub(r"\$[A-Z_]+", "{}", address.removeprefix("$A").split("?")[0])
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if set(SENDS) & set(words) else "GET"
    return method, path


def test_every_call_is_shown() -> None:
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    there = {(m.upper(), re.sub(r"{\w+}", "{}", path)) for path, methods in paths.items() for m in methods}
    shown = {call(command) for command in COMMAND.findall(GUIDE.read_text())}
    assert shown == there

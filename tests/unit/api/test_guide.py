"""The API guide shows a curl for every call that there is, and for none that is not."""

import re
import shlex
from pathlib import Path

from api.app import create_app
from shared.settings import Settings

GUIDE = Path(__file__).parents[3] / "docs" / "api.md"
COMMAND = re.compile(r"^\$ (curl .*?)\n(?=\$ |```)", re.MULTILINE | re.DOTALL)
"""With the lines that it goes on for. What it prints is not told from them, and does no harm: it holds no address."""
VALUE = re.compile(r"\$[A-Z_]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What stands for a parameter in a path: a variable, or an id that the client has drawn."""
ALIASES = "/opengdpr_requests"
"""Older names of calls that are shown under their present ones."""
SENDS = ("-d", "--data-binary", "-F")


def call(command: str) -> tuple[str, str]:
    """Return the method and the path of a curl, every variable in the path as `{}`."""
    words = shlex.split(command)
    (address,) = (word for word in words if word.startswith("$A/"))
    path = re.sub(VALUE, "{}", address.removeprefix("$A").split("?")[0])
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if set(SENDS) & set(words) else "GET"
    return method, path


def test_every_call_is_shown() -> None:
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    named = {path: methods for path, methods in paths.items() if ALIASES not in path}
    there = {(m.upper(), re.sub(r"{\w+}", "{}", path)) for path, methods in named.items() for m in methods}
    shown = {call(command) for command in COMMAND.findall(GUIDE.read_text())}
    assert shown == there

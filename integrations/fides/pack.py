"""Packs the connector as Fides takes it: `POST /api/v1/connector-templates/register`, or the
page of integrations.
"""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

FOLDER = Path(__file__).parent
FILES = ("config.yml", "dataset.yml", "icon.svg")
POLLING = "          correlation_id_path: id\n"
"""Where the part of the configuration begins that says how Fides polls."""
CALLBACK = """\
            - name: reply-to
              value: <reply_to>
            - name: reply-to-token
              value: <reply_to_token>
          async_config:
            strategy: callback
"""
"""What stands there for a Fides that waits to be called: two more headers, and no polling."""


def pack(target: Path, *, callback: bool = False) -> Path:
    """Write the zip and return its path. The same files give the same bytes."""
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name in FILES:
            content = (FOLDER / name).read_text()
            if callback and name == "config.yml":
                content = content.partition(POLLING)[0] + CALLBACK
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)
    return target

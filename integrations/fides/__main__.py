"""`python -m integrations.fides FILE` packs the connector; `--callback` the one that Fides need
not poll with.
"""

import argparse
from pathlib import Path

from integrations.fides.pack import pack

parser = argparse.ArgumentParser(
    prog="python -m integrations.fides", description="Packs the connector for Fides."
)
parser.add_argument("file", nargs="?", type=Path, default=Path("efface-fides.zip"))
parser.add_argument(
    "--callback", action="store_true", help="Fides waits to be called instead of polling"
)
given = parser.parse_args()
print(pack(given.file, callback=given.callback))  # noqa: T201

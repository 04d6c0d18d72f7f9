"""Which code runs here: version, digest of its source files, and digest of its container image
where that is known.
"""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from shared.schemas.report import Build
from shared.settings import get_settings

PACKAGES = ("api", "migrations", "services", "shared", "worker")
ROOT = Path(__file__).parents[1]


@lru_cache(maxsize=1)
def this_build() -> Build:
    """Return what runs in this process; its files are read once."""
    return Build(
        version=version("efface"), code=code_digest(ROOT), image=get_settings().image_digest
    )


def code_digest(root: Path) -> str:
    """Return the SHA-256 of the list that `sha256sum` makes of our packages' Python files, sorted
    by path (LC_ALL=C).

    The same is computed, in the folder that holds the packages, by

        find api migrations services shared worker -name '*.py' | LC_ALL=C sort | xargs sha256sum |
        sha256sum
    """
    files = sorted(
        str(file.relative_to(root)) for name in PACKAGES for file in (root / name).rglob("*.py")
    )
    lines = (
        f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()

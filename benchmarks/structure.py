"""Claim: functions are short, lines fit, and a request does not wander through the code.

    python -m benchmarks.structure [REVISION ...]    # without any, the working tree
    python -m benchmarks.structure --walk            # one POST /jobs on real Postgres and Redis

The table counts what stands in api, worker, services, shared and migrations. The walk records the
modules of ours that one `POST /jobs` enters, in order of their calls: a stay is a run of calls in
one module, a room a module, a return a stay in a module that was left before. Schemas, which only
validate values, are left out.
"""

import argparse
import ast
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType

import httpx
from pydantic import SecretStr

import migrations
from benchmarks.service import demo_request
from shared.settings import Settings
from shared.states import Scope

PACKAGES = ("api", "worker", "services", "shared", "migrations")
LONG_FUNCTION = 40
LONG_LINE = 100


@dataclass
class Counts:
    """What was counted in one tree."""

    modules: list[int] = field(default_factory=list)
    """Lines of each module."""
    functions: list[int] = field(default_factory=list)
    """Lines of each function."""
    documented: int = 0
    typed: int = 0
    lines: int = 0
    long_lines: int = 0

    def add(self, source: str) -> None:
        """Count one module."""
        lines = source.splitlines()
        self.modules.append(len(lines))
        self.lines += len(lines)
        self.long_lines += sum(len(line) > LONG_LINE for line in lines)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.append((node.end_lineno or node.lineno) - node.lineno + 1)
                self.documented += ast.get_docstring(node) is not None
                self.typed += node.returns is not None

    def row(self) -> dict[str, str]:
        """Return the figures as they are printed."""
        functions = sorted(self.functions)
        return {
            "modules": f"{len(self.modules)}",
            "lines a module, median / longest": (
                f"{statistics.median(self.modules):.0f} / {max(self.modules)}"
            ),
            "functions": f"{len(functions)}",
            "lines a function, median / p99 / longest": (
                f"{statistics.median(functions):.0f} / {functions[int(0.99 * len(functions))]}"
                f" / {functions[-1]}"
            ),
            f"functions over {LONG_FUNCTION} lines": f"{sum(n > LONG_FUNCTION for n in functions)}",
            f"lines over {LONG_LINE} characters": (
                f"{self.long_lines} ({100 * self.long_lines / self.lines:.1f} %)"
            ),
            "functions with a docstring": f"{100 * self.documented / len(functions):.0f} %",
            "functions with typed returns": f"{100 * self.typed / len(functions):.0f} %",
        }


def main() -> None:
    """Print the table, or the walk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*")
    parser.add_argument("--walk", action="store_true")
    arguments = parser.parse_args()
    if arguments.walk:
        print_walk()
        return
    columns = {name or "working tree": counted(name) for name in arguments.revisions or [""]}
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    rows = [counts.row() for counts in columns.values()]
    for name in rows[0]:
        print(f"| {name} | " + " | ".join(row[name] for row in rows) + " |")


def counted(revision: str) -> Counts:
    """Return the counts of a revision of the repository, of the working tree where it is empty."""
    if not revision:
        return _counted_below(Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", revision, "--", *PACKAGES], check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return _counted_below(Path(folder))


def _counted_below(root: Path) -> Counts:
    counts = Counts()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            counts.add(file.read_text(encoding="utf-8"))
    return counts


class Walk:
    """Records the modules of ours that are entered, by whatever thread, while it is on."""

    def __init__(self) -> None:
        self.stays: list[str] = []
        self._on = False

    def see(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call, as `sys.setprofile` reports it."""
        module = frame.f_globals.get("__name__", "")
        ours = (
            module.startswith(tuple(f"{name}." for name in PACKAGES)) and ".schemas." not in module
        )
        if self._on and event == "call" and ours and self.stays[-1:] != [module]:
            self.stays.append(module)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record while the block runs."""
        self._on = True
        try:
            yield
        finally:
            self._on = False


def print_walk() -> None:
    """Post one job and print where the request went."""
    walk = Walk()
    threading.setprofile(walk.see)  # of the threads that the gateway starts
    with _gateway() as (client, body):
        client.post("/jobs", json=body).raise_for_status()  # what is made once is made now
        with walk.on():
            client.post("/jobs", json=body | {"external_id": "the walk"}).raise_for_status()
    threading.setprofile(None)
    rooms = list(dict.fromkeys(walk.stays))
    returns = len(walk.stays) - len(rooms)
    print(f"stays {len(walk.stays)}, rooms {len(rooms)}, returns {returns}")
    for number, stay in enumerate(walk.stays, 1):
        print(f"{number:4}  {stay}")


@contextmanager
def _gateway() -> Iterator[tuple[httpx.Client, dict[str, object]]]:
    """Run the gateway in a thread; give a client that is signed in, and a request for it."""
    from tests.support.servers import serving

    embedded = _first("shared.ports.embedded_servers", "shared.embedded")
    postgres = _first("shared.postgres.database", "shared.database")
    keys, models = (
        _first("services.access.api_keys", "services.keys"),
        _first("services.catalog.models", "services.models"),
    )
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="efface-walk-")))
        settings = Settings(
            database_url=SecretStr(stack.enter_context(embedded.embedded_postgres(home / "pg"))),
            redis_url=SecretStr(stack.enter_context(embedded.embedded_redis(home / "redis"))),
            storage_url=f"file://{home / 'objects'}",
        )
        migrations.upgrade(settings.sqlalchemy_url())
        engine = postgres.make_engine(settings)
        with postgres.Database(engine).transaction() as session:
            _, key = keys.create(session, tenant="walk", name="walk", scopes=[Scope.ADMIN])[:2]
            values: dict[str, object] = {"id": "mdl_walk", "reference": "storage:nowhere"}
            tenant = keys.tenant_named(session, "walk").id
            models.add(session, tenant_id=tenant, name="clip", values=values)
        engine.dispose()
        url = stack.enter_context(serving(settings))
        headers = {"Authorization": f"Bearer {key}"}
        body = demo_request("mdl_walk")
        yield stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60)), body


def _first(*names: str) -> ModuleType:
    """Return the first module that is there: the walk also runs in older checkouts."""
    return import_module(next(name for name in names if _exists(name)))


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()

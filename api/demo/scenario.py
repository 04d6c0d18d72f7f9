"""`efface demo`: the whole service on this machine forgets a class and a subgroup of the demo's
own drawings.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli import show
from api.cli.local_files import upload_model
from api.client import Client
from api.demo.drawings import OBJECTS, SHAPES, SYNONYMS, Cell, cells, write_archive
from api.processes import Ending
from api.stack import running
from services.certificates.verification import Exhibits, Outcome, verify
from shared.crypto.public_keys import read_public_keys
from shared.schemas.certificate import SUBJECT_NAME
from shared.states import JobState

PREFIX = "efface-demo-"
MODEL = Path(__file__).parent / "model"
FORGOTTEN_CLASS = "umbrella"
FORGOTTEN_CELL = Cell("fish", "sketch")
CERTIFICATE_SECONDS = 30.0
"""How long the demo waits for a certificate after its job has ended."""
FIRST_SEED = 11
"""Any seed but that of the model's training draws pictures that it has not seen."""


@dataclass(frozen=True, slots=True)
class Act:
    """One erasure of the demo."""

    name: str
    title: str
    request: Mapping[str, Any]


def run_demo(*, home: Path | None, out: Path, keep: bool) -> bool:
    """Run both erasures, check their certificates and print what they did; True if both succeeded.

    Args:
        home: where the service keeps its data; a temporary folder if None.
        out: where reports, certificates and weights go, one folder for each erasure.
        keep: leave the temporary folder where it is.
    """
    ending = Ending()
    ending.listen()
    kept = keep or home is not None
    with ExitStack() as stack:
        if home is None and keep:
            home = Path(tempfile.mkdtemp(prefix=PREFIX))
        elif home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        show.out.print("Starting Postgres, Redis, the API, a relay and a worker ...")
        service = stack.enter_context(running(home, 0, ending))
        show.out.print(
            f"Ready at {service.url}; certificates are signed with key {service.signing_key}.\n"
        )
        client = stack.enter_context(Client(service.url, service.key))
        succeeded = [_play(client, act, out / act.name) for act in _acts(client)]
    if kept:
        show.out.print(f"\nEverything is kept. To look at it in a browser: efface up --home {home}")
        show.out.print(
            "It prints a link that signs you in to the console, where both erasures are."
        )
    return all(succeeded)


def _acts(client: Client) -> Iterator[Act]:
    """Upload what the erasures need, and yield them."""
    with tempfile.TemporaryDirectory(prefix="efface-drawings-") as folder:
        ids = _upload(client, Path(folder))
    evaluation = [
        {"name": "objects", "dataset": ids["objects"]},
        {"name": "shapes", "dataset": ids["shapes"]},
    ]
    yield Act(
        "class",
        f"Forget a class from its name alone: {FORGOTTEN_CLASS}",
        {
            "model": {"id": ids["model"]},
            "target": {
                "type": "class",
                "class": FORGOTTEN_CLASS,
                "synonyms": SYNONYMS.get(FORGOTTEN_CLASS, []),
                "labels": list(OBJECTS),
            },
            "method": {"name": "synthetic"},
            "data": {"evaluation": evaluation},
            "external_id": "demo-class",
        },
    )
    yield Act(
        "subgroup",
        (
            f"Forget a part of a class from images of it: {FORGOTTEN_CELL.name} as a "
            f"{FORGOTTEN_CELL.style}"
        ),
        {
            "model": {"id": ids["model"]},
            "target": {
                "type": "subgroup",
                "class": FORGOTTEN_CELL.name,
                "subgroup": FORGOTTEN_CELL.style,
                "labels": list(OBJECTS),
            },
            "method": {"name": "three_stage"},
            "data": {role: ids[role] for role in ("forget", "retain", "forget_test", "retain_test")}
            | {"evaluation": evaluation[1:]},
            "external_id": "demo-subgroup",
        },
    )


def draw_sets(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Draw the demo's data sets, one archive at a time; yield name, path and number of pictures
    of each.
    """
    others = [cell for cell in cells() if cell != FORGOTTEN_CELL]
    wanted = {
        "objects": (cells(), 20),
        "shapes": (cells(SHAPES), 20),
        "forget": ([FORGOTTEN_CELL], 100),
        "forget_test": ([FORGOTTEN_CELL], 100),
        "retain": (others, 20),
        "retain_test": (others, 20),
    }
    for number, (name, (drawn, count)) in enumerate(wanted.items()):
        path = folder / f"{name}.zip"
        pictures = write_archive(
            path, drawn, count, FIRST_SEED + number
        )  # so that no two sets share a picture
        yield name, path, pictures


def _upload(client: Client, folder: Path) -> dict[str, str]:
    """Draw, upload, and return the ids by name."""
    ids = {"model": upload_model(client, MODEL, name="demo").id}
    for name, path, pictures in draw_sets(folder):
        with show.upload(path) as advance:
            ids[name] = client.add_dataset(path, advance=advance).id
        show.out.print(f"Drew and uploaded {pictures} pictures: {name}")
    return ids


def _play(client: Client, act: Act, folder: Path) -> bool:
    """Run one erasure to its end, print its table, and fetch what it left."""
    show.out.print(f"\n[bold]{act.title}[/bold]")
    job = show.follow(client.watch(client.submit(act.request).id))
    folder.mkdir(parents=True, exist_ok=True)
    if job.verdict is not None:
        (folder / "report.json").write_bytes(client.report_file(job.id))
        (folder / "report.html").write_text(client.report_page(job.id), encoding="utf-8")
        show.out.print(show.report_table(client.report(job.id)))
    if job.state is not JobState.SUCCEEDED:
        reason = f": {job.error.message}" if job.error else ""
        show.out.print(f"[red]{job.id} {job.state}{reason}[/red]")
        return False
    with show.transfer("downloading", None) as advance:
        client.weights(job.id, folder / "model", advance=advance)
    show.out.print(
        f"[green]{job.id} {job.state}[/green]; report and weights are in {folder.absolute()}"
    )
    return _verified(client, job.id, folder)


def _verified(client: Client, job_id: str, folder: Path) -> bool:
    """Fetch the certificate and check it with the keys that the service publishes; True if it
    holds.
    """
    certificate, keys = folder / "certificate.json", folder.parent / "efface-keys.json"
    certificate.write_bytes(client.certificate(job_id, patience_seconds=CERTIFICATE_SECONDS))
    keys.write_bytes(client.public_keys())
    weights = folder / "model" / SUBJECT_NAME
    exhibits = Exhibits(weights=weights, report=folder / "report.json", page=folder / "report.html")
    finding = verify(certificate.read_bytes(), read_public_keys(keys.read_bytes()), exhibits)
    colour = "green" if finding.outcome is Outcome.VALID else "red"
    show.out.print(f"certificate: [{colour}]{finding.outcome}[/{colour}]: {finding.reason}")
    show.out.print(f"  again: efface verify {certificate} --weights {weights.parent} --key {keys}")
    return finding.outcome is Outcome.VALID

"""`efface run`: the pipeline in this process, with no server."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.certificates.statement import CERTIFICATE_NAME, Facts, signed
from shared.crypto.certificate_keys import KeyFolder
from shared.files.image_archives import file_sha256
from shared.ports.object_storage import Storage
from shared.schemas.certificate import SUBJECT_NAME
from shared.schemas.report import Report
from shared.schemas.result import PipelineResult
from shared.schemas.spec import JobSpec
from shared.settings import Settings, get_settings
from shared.states import Stage
from worker.data_parallel import is_main, joined
from worker.pipeline import chosen_device, run_pipeline

PASSED, MISSED = 0, 3


class Bars:
    """Progress as one bar a stage, on stderr."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, stage: Stage) -> None:
        """Finish the last bar and begin the next."""
        self._finish()
        self._task = self._bars.add_task(stage.value, total=None, metrics="")

    def step(
        self,
        stage: Stage,  # noqa: ARG002 - the bar is that of the current stage
        step: int,
        total: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Move the bar."""
        if self._task is not None:
            words = "  ".join(f"{name} {value:.3g}" for name, value in (metrics or {}).items())
            self._bars.update(self._task, completed=step, total=total, metrics=words)

    def _finish(self) -> None:
        if self._task is not None:
            total = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, completed=total, total=total)


def run(spec: JobSpec, out: Path, device: str) -> int:
    """Run a request and return the exit code: 0 where the verdict is passed, 3 where a threshold is
    missed.

    What comes of it is certified with this machine's own key, which is made at the first use. Of
    several processes that `torchrun` started, the first one writes and signs.

    Raises:
        NoSigningKey: there is a key, and it must not be used as it lies there.
        JobFailure: no verdict was reached.
    """
    settings = get_settings()
    sign = _certifier(spec, settings) if is_main() else None
    columns = (
        TextColumn("{task.description:>13}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    out.mkdir(parents=True, exist_ok=True)
    with (
        joined(chosen_device(device)) as own_device,
        tempfile.TemporaryDirectory(prefix="efface-run-") as folder,
    ):
        storage = Storage(f"file://{folder}/objects")
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        with Progress(*columns, console=Console(stderr=True), disable=not is_main()) as bars:
            result = run_pipeline(spec, storage, Bars(bars), scratch, str(own_device))
        if sign is not None:
            _write(result, storage, out)
            (out / CERTIFICATE_NAME).write_bytes(sign(out))
    return PASSED if result.verdict == "passed" else MISSED


def _write(result: PipelineResult, storage: Storage, out: Path) -> None:
    """Copy the artifacts; of an earlier run nothing stays that could be taken for this one's."""
    for old in ("model", "quarantine"):
        shutil.rmtree(out / old, ignore_errors=True)
    (out / CERTIFICATE_NAME).unlink(missing_ok=True)
    for artifact in result.artifacts:
        storage.download(artifact.key, out / artifact.name)


def _certifier(spec: JobSpec, settings: Settings) -> Callable[[Path], bytes]:
    """Return what signs a folder of results. Keys are opened now: who cannot sign learns it
    before the work is done.
    """
    folder = KeyFolder(settings.signing_dir)
    if not folder.has_signer:
        print(f"efface: made signing key {folder.create()} in {folder.folder}", file=sys.stderr)  # noqa: T201
    signer, subject_key = folder.signer(), folder.subject_key(spec.tenant_id)
    started_at = datetime.now(UTC)

    def certificate(out: Path) -> bytes:
        report = Report.model_validate_json((out / "report.json").read_bytes())
        place = "model" if report.verdict == "passed" else "quarantine"
        facts = Facts(
            spec=spec,
            report=report,
            report_sha256=file_sha256(out / "report.json"),
            page_sha256=file_sha256(out / "report.html"),
            weights_sha256=file_sha256(out / place / SUBJECT_NAME),
            received_at=spec.request.received_at or started_at,
            started_at=started_at,
            finished_at=datetime.now(UTC),
        )
        return signed(facts, signer, subject_key, with_names=settings.certificate_names)

    return certificate

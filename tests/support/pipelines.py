"""A pipeline for tests of everything around it: real stages, checkpoints and artifacts, no model.

`EFFACE_PIPELINE=tests.support.pipelines:run`. What it does is told by the request's `metadata`:

    seconds    how long each stage takes (0)
    at         the stage at which something happens (forgetting)
    what       die | raise | fail | hang | family; or miss: the verdict is failed
    attempts   in how many attempts it happens (all)

Images to be forgotten are opened as a real run would open them, and what was seen in them is kept with the job.
"""

import base64
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

from shared.crypto.archive_encryption import unsealed
from shared.errors import JobFailure
from shared.files.image_archives import ArchiveLimits, read_set
from shared.ports.object_storage import Storage
from shared.schemas.job import JobError
from shared.schemas.result import ArtifactRecord, PipelineResult
from shared.schemas.spec import JobSpec
from shared.settings import get_settings
from shared.states import Stage
from tests.support.certificates import report
from worker.ports import Progress

STAGES = (Stage.PREPARING, Stage.SYNTHESIZING, Stage.FORGETTING, Stage.AUDITING, Stage.PUBLISHING)
STEPS = 4
USED = "used"
"""The name of the file that each run leaves in its scratch folder."""


def run(spec: JobSpec, storage: Storage, progress: Progress, scratch: Path, device: str) -> PipelineResult:
    """Go through the stages, each of which leaves a checkpoint, then upload."""
    wish = spec.request.metadata
    done = {o.key.rsplit("/", 1)[1] for o in storage.list(spec.checkpoint_prefix)}
    (scratch / USED).write_text(device)
    look_at_images(spec, storage, scratch)
    for stage in STAGES:
        if stage in done:
            continue
        progress.stage(stage)
        if stage == wish.get("at", Stage.FORGETTING) and spec.attempt <= int(wish.get("attempts", "99")):
            misbehave(wish.get("what", ""))
        for step in range(1, STEPS + 1):
            time.sleep(float(wish.get("seconds", "0")) / STEPS)
            progress.step(stage, step, STEPS, {"loss": 1 / step})
        storage.put(f"{spec.checkpoint_prefix}/{stage}", b"checkpoint")
    return publish(spec, storage, failed=wish.get("what") == "miss")


def misbehave(what: str) -> None:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise RuntimeError("a surprise")
    elif what == "fail":
        raise JobFailure("invalid_checkpoint", "It holds no weights.", {"file": "weights"})
    elif what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    elif what == "family":
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)


def look_at_images(spec: JobSpec, storage: Storage, scratch: Path) -> None:
    """Open what is to be forgotten, if any was uploaded, and keep something of it, as predictions are kept."""
    source, settings = spec.data.forget, get_settings()
    if source is None or source.id is None or source.data_key is None:
        return
    archive = scratch / "archive"
    sealed = storage.stream(source.uri.removeprefix("storage:"))
    key = base64.b64decode(source.data_key)
    archive.write_bytes(b"".join(unsealed(sealed, key, source.id)))
    seen: list[str] = []
    read_set(archive, ArchiveLimits.of(settings), lambda found: seen.append(found.name.rpartition("/")[2]))
    storage.put(f"{spec.job_cache_prefix}/seen", "\n".join(seen).encode())


def publish(spec: JobSpec, storage: Storage, *, failed: bool) -> PipelineResult:
    folder = "quarantine" if failed else "model"
    weights = b"weights of " + spec.job_id.encode()
    measured = report(spec, verdict="failed" if failed else "passed", weights=weights)
    files = {
        "report.json": measured.model_dump_json().encode(),
        f"{folder}/open_clip_model.safetensors": weights,
        f"{folder}/open_clip_config.json": b"{}",
    }
    artifacts = []
    for name, content in files.items():
        key = f"{spec.attempt_prefix}/{name}"
        storage.put(key, content)
        digest = hashlib.sha256(content).hexdigest()
        quarantined = name.startswith("quarantine")
        artifacts.append(
            ArtifactRecord(name=name, key=key, sha256=digest, size_bytes=len(content), quarantined=quarantined)
        )
    return PipelineResult(
        verdict="failed" if failed else "passed",
        error=JobError(code="thresholds_not_met", message="Too much is left.") if failed else None,
        artifacts=tuple(artifacts),
        architecture="ViT-tiny",
        model_digest=artifacts[1].sha256,
    )

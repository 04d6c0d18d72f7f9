"""What the OpenAPI document promises is kept, for requests that nobody would think of (schemathesis, all checks).

`make fuzz` runs the same with more of them.
"""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from api.examples import JOB_REQUESTS
from shared.schemas.report import ModelChange, ModelIdentity, Report, TargetResult
from shared.schemas.request import ErasureRequest

EXAMPLES = os.environ.get("EFFACE_FUZZ_EXAMPLES", "6")
"""Made up at random for each call, besides those that walk along the limits of its schema."""
PHASES = os.environ.get("EFFACE_FUZZ_PHASES", "examples,coverage,fuzzing")
SEED = os.environ.get("EFFACE_FUZZ_SEED", "1")
CONFIG = Path(__file__).parent / "schemathesis.toml"


def full_report() -> bytes:
    """Return a report as a worker writes it, of a job that measured nothing."""
    model = ModelIdentity(id=None, architecture="ViT", digest="00")
    return (
        Report(
            job_id="job_x",
            attempt=1,
            created_at=datetime.now(UTC),
            request=ErasureRequest.model_validate(JOB_REQUESTS["class"]["value"]),
            verdict="passed",
            thresholds=(),
            target=TargetResult(accuracy=None, synthetic_accuracy=None),
            evaluations=(),
            model_before=model,
            model_after=model,
            model_change=ModelChange(
                tensors_changed=0, tensors_total=0, parameters_changed=0, parameters_total=0, towers=()
            ),
            method={},
            stages=(),
            seed=0,
            versions={},
            hardware={},
            limits=(),
        )
        .model_dump_json()
        .encode()
    )


def test_every_answer_is_one_that_the_document_promises(server, make_key, make_job, tmp_path, capsys):
    make_job.succeeded(full_report())
    report = tmp_path / "report.json"
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(CONFIG)]
    command += ["run", f"{server}/openapi.json", "--header", f"Authorization: Bearer {make_key()}"]
    command += ["--checks", "all", "--phases", PHASES, "--max-examples", EXAMPLES, "--seed", SEED]
    command += ["--continue-on-failure", "--report-json-path", str(report)]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    with capsys.disabled():
        print(f"\n{done.stdout[-1500:]}")  # noqa: T201
    assert json.loads(report.read_text())

"""The command line, as a process: what it prints where, and its exit codes."""

import json
import os
import subprocess
import sys

import pytest

from api.cli.exits import ExitCode, explain
from api.client import ApiProblem, Unreachable
from shared.errors import Conflict, InvalidRequest, JobFailure, Unavailable

NOWHERE = "http://127.0.0.1:1"  # nothing listens on port 1


def efface(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EFFACE_")}
    command = [sys.executable, "-m", "api.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment | variables, timeout=60)


def assert_one_line(done, code):
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_help_lists_every_command_without_torch():
    script = "import sys; sys.argv[1:] = ['--help']\nfrom api.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    script += "print([name for name in ('torch', 'sqlalchemy', 'fastapi', 'celery') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines()[-1] == "[]"
    commands = "up demo run submit jobs job report weights certificate verify cancel keys worker relay"
    for command in commands.split():
        assert f" {command} " in done.stdout


def test_version():
    done = efface("version")

    assert done.returncode == 0
    assert done.stdout.strip()[0].isdigit()


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("submit", "missing.json"), ("job",), ("jobs",), ("models", "add"), ("keys", "create")],
)
def test_wrong_usage_exits_2(arguments):
    done = efface(*arguments)

    assert done.returncode == ExitCode.BAD_INPUT
    assert "Traceback" not in done.stderr


def test_a_request_that_is_not_json_exits_2(tmp_path):
    path = tmp_path / "request.json"
    path.write_text('{"seed": NaN}')

    done = efface("submit", path, EFFACE_API_KEY="k", EFFACE_URL=NOWHERE)

    assert_one_line(done, ExitCode.BAD_INPUT)
    assert "NaN is not a JSON number" in done.stderr


def test_a_wrong_field_exits_2_and_is_named(tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"model": {"id": "m"}, "target": {"type": "class"}, "method": {"name": "synthetic"}}))

    done = efface("submit", path, EFFACE_API_KEY="k", EFFACE_URL=NOWHERE)

    assert_one_line(done, ExitCode.BAD_INPUT)
    assert "/target/class" in done.stderr


def test_no_server_exits_1():
    done = efface("job", "job_1", EFFACE_API_KEY="k", EFFACE_URL=NOWHERE)

    assert_one_line(done, ExitCode.FAILURE)
    assert "cannot be reached" in done.stderr


def test_a_wrong_setting_exits_2_and_is_named():
    done = efface("relay", EFFACE_REDIS_URL="sentinel://10.0.0.1", EFFACE_LEASE_SECONDS="long")

    assert_one_line(done, ExitCode.BAD_INPUT)
    assert "EFFACE_REDIS_URL: must begin with redis://" in done.stderr
    assert "EFFACE_LEASE_SECONDS: Input should be a valid number" in done.stderr


def test_no_database_exits_1():
    done = efface("migrate", EFFACE_DATABASE_URL="postgresql://127.0.0.1:1/efface")

    assert_one_line(done, ExitCode.FAILURE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest.at("/seed", "must be a number"), 2),
        (ApiProblem(422, {"detail": "d"}), 2),
        (ApiProblem(413, {"detail": "d"}), 2),
        (ApiProblem(404, {"detail": "d"}), 1),
        (ApiProblem(503, {"detail": "d"}), 1),
        (Unreachable("u"), 1),
        (Conflict("c"), 1),
        (Unavailable("u"), 1),
        (JobFailure("thresholds_not_met", "too much is left"), 3),
        (JobFailure("method_failed", "it diverged"), 1),
        (ZeroDivisionError("division by zero\nmore"), 1),
    ],
)
def test_every_error_has_an_exit_code_and_one_line(error, code):
    message, found = explain(error)

    assert found == code
    assert "\n" not in message

"""The process that opens what strangers upload: its environment, its limits, its network."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shared.settings import Settings
from shared.states import Stage
from tests.support.fleet import Fleet, wait_until
from worker.environment import child_environment

FORBIDDEN = ("DATABASE", "REDIS", "MASTER", "SIGNING", "AUDIT", "OPENDSR")


@pytest.fixture
def child(fleet: Fleet) -> psutil.Process:
    """The process of a job that does not end."""
    with fleet.relay():
        worker = fleet.worker()
        job = fleet.submit(what="hang", at=Stage.PREPARING)
        fleet.wait_for_stage(job, Stage.PREPARING)
        return min(worker.children(), key=lambda process: process.create_time())


def test_its_environment_holds_no_secret_of_the_worker(fleet: Fleet, child: psutil.Process) -> None:
    environment = Path(f"/proc/{child.pid}/environ").read_bytes().decode()
    names = {entry.split("=", 1)[0] for entry in environment.split("\0") if entry}
    assert not [name for name in names if any(word in name for word in FORBIDDEN)]
    assert "EFFACE_STORAGE_URL" in names
    settings = fleet.settings
    assert settings.master_key is not None
    secrets = (settings.database_url, settings.redis_url, settings.master_key)
    assert not [secret for secret in secrets if secret.get_secret_value() in environment]


def test_it_leaves_no_dump_and_gains_no_privilege(child: psutil.Process) -> None:
    status = Path(f"/proc/{child.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


CHECK = """
import socket, sys
from shared.settings import get_settings
from worker.confinement import confine
said = confine(get_settings())
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2).close()
    print(said, "| reached")
except OSError:
    print(said, "| not reached")
"""


@pytest.mark.parametrize(
    ("changes", "word"),
    [({}, "no network"), ({"isolation": "off"}, "is off"), ({"allow_hub": True}, "needs it")],
    ids=["folder", "off", "hub"],
)
def test_it_has_a_network_only_where_it_needs_one(settings: Settings, changes: dict[str, object], word: str) -> None:
    """Or where the kernel gives it no namespace, and then it says so."""
    wanted = settings.model_copy(update=changes)
    port = settings.database_url.get_secret_value().rsplit(":", 1)[1].split("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", CHECK, port], env=child_environment(wanted), capture_output=True, text=True, check=True
    )
    said, _, reached = done.stdout.strip().rpartition(" | ")
    if "kernel refuses" in said:
        assert not changes
        assert reached == "reached"
        return
    assert word in said
    assert reached == ("not reached" if said.endswith("no network") else "reached")


def test_the_worker_says_how_far_it_went(fleet: Fleet) -> None:
    worker = fleet.worker()
    wait_until(lambda: "standby.confined" in worker.plain_log(), "the log does not say so")
    assert "no new privileges" in worker.plain_log()

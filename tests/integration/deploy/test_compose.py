"""The compose file keeps apart what the documents keep apart; its roles and first keys are made as it makes them."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from pydantic import SecretStr

from services.access import api_keys
from services.audit_log import chain
from services.jobs import ending, submission
from shared.ports.embedded_servers import embedded_postgres, postgres_binaries
from shared.postgres.database import Database, make_engine
from shared.settings import Settings
from tests.support import requests

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("efface-")}
PARTS = set(SERVICES) - set(OURS)


def mounted(service: Mapping[str, Any]) -> dict[str, str]:
    """Return what is mounted: place inside -> what it is."""
    return {entry.removesuffix(":ro").rpartition(":")[2]: entry for entry in service.get("volumes", [])}


def test_it_holds_what_the_documents_name() -> None:
    assert set(OURS) == {"api", "relay", "worker", "worker-cpu", "migrate", "init"}
    assert {"postgres", "redis", "storage"} == PARTS
    assert SERVICES["worker"]["profiles"] == ["gpu"] and SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert "devices" in str(SERVICES["worker"]["deploy"]) and "devices" not in str(SERVICES["worker-cpu"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(service.get(limit) for limit in ("mem_limit", "cpus", "pids_limit"))
    assert name in OURS or {"ALL", "SYS_ADMIN"}.isdisjoint(service["cap_add"])
    assert name not in OURS or "cap_add" not in service
    assert service["networks"] and set(service["networks"]) <= set(COMPOSE["networks"])


def test_every_setting_in_the_env_file_reaches_every_process_of_ours() -> None:
    assert all(service["env_file"] == [".env"] for service in OURS.values())


def test_what_must_not_reach_the_internet_cannot() -> None:
    assert COMPOSE["networks"]["data"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if "front" in service["networks"]}
    assert outside == {"api", "relay", "storage"}
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api", "storage"}


def test_keys_are_where_they_are_needed_and_nowhere_else() -> None:
    for place in ("/signing", "/audit"):
        assert {name for name, service in SERVICES.items() if place in mounted(service)} == {"relay", "init"}
        assert mounted(SERVICES["relay"])[place].endswith(":ro")
    assert {name for name, service in SERVICES.items() if "/keys" in mounted(service)} == {"init"}
    assert {name for name, service in SERVICES.items() if "secrets" in service} == {"migrate", "postgres"}
    owner = {name for name, s in SERVICES.items() if "efface_owner" in str(s.get("environment"))}
    assert owner == {"migrate"}
    assert "postgres-owner" not in (ROOT / "docker.env.example").read_text().split("SECRETS_FOLDER")[1]


def test_images_are_named_by_exact_versions() -> None:
    for name in PARTS:
        assert SERVICES[name]["image"].count(":") == 1 and SERVICES[name]["image"].rpartition(":")[2][0].isdigit()
    assert "FROM python:3.11.14" in (ROOT / "Dockerfile").read_text()


def test_volumes_and_variables_are_declared() -> None:
    named = {entry.partition(":")[0] for s in SERVICES.values() for entry in s.get("volumes", []) if entry[0].isalpha()}
    assert named == set(COMPOSE["volumes"])
    example = (ROOT / "docker.env.example").read_text()
    text = (ROOT / "docker-compose.yml").read_text()
    needed = {part.partition(":?")[0] for part in text.split("${")[1:] if ":?" in part.partition("}")[0]}
    assert needed and all(f"\n{name}=\n" in example for name in needed)


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if "command" in service])
def test_what_it_calls_is_a_command_with_these_options(name: str) -> None:
    words = " ".join(SERVICES[name]["command"]).split("efface ")[-1].split()
    command = [sys.executable, "-m", "api.cli", words[0], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words if word.startswith("--"))


class Deployment:
    """A Postgres as the compose file makes it, and the commands that it calls."""

    def __init__(self, url: str, folder: Path) -> None:
        place = urlsplit(url)
        self.folder, self.password = folder, str(place.password)
        self.place = f"127.0.0.1:{place.port}/efface"
        (folder / "postgres-owner").write_text("owner's")
        with psycopg.connect(url.replace("/efface", "/postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE efface")
        self.script = os.environ | {
            "PATH": f"{postgres_binaries()}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(place.port),
            "PGPASSWORD": self.password,
            "POSTGRES_USER": "postgres",
            "OWNER_PASSWORD_FILE": str(folder / "postgres-owner"),
            "SERVICE_PASSWORD": "service's",
        }

    def url(self, role: str) -> str:
        password = {"efface": "service's", "efface_owner": "owner's"}[role]
        return f"postgresql://{role}:{password}@{self.place}"

    def efface(self, *arguments: str, role: str) -> subprocess.CompletedProcess[str]:
        own = {
            "EFFACE_DATABASE_URL": self.url(role),
            "EFFACE_DATABASE_SERVICE_ROLE": "efface" if role == "efface_owner" else "",
            "EFFACE_SIGNING_DIR": str(self.folder / "signing"),
            "EFFACE_STORAGE_URL": f"file://{self.folder}/objects",
        }
        command = [sys.executable, "-m", "api.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | own, timeout=120)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with embedded_postgres(folder / "postgres") as url:
        made = Deployment(url, folder)
        script = ["sh", str(ROOT / "deploy" / "postgres-roles.sh")]
        subprocess.run(script, env=made.script, check=True, capture_output=True, timeout=60)
        for _ in range(2):  # idempotent
            migrated = made.efface("migrate", role="efface_owner")
            assert migrated.returncode == 0, migrated.stderr
        yield made


def test_the_first_keys_are_made_once_and_shown_nowhere(deployment: Deployment) -> None:
    files = [deployment.folder / "keys" / "api-key", deployment.folder / "audit" / "audit.pem"]
    arguments = ("init", "--key-file", str(files[0]), "--audit-key-file", str(files[1]))
    first = deployment.efface(*arguments, role="efface")
    assert (first.returncode, first.stderr) == (0, ""), first.stderr
    kept = [file.read_bytes() for file in files]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert kept[0].startswith(b"efk_") and kept[0].decode().strip() not in first.stdout
    second = deployment.efface(*arguments, role="efface")
    assert second.returncode == 0 and [file.read_bytes() for file in files] == kept
    assert first.stdout.count("made") == 3 and "made" not in second.stdout.replace("is made", "")


def test_the_service_works_and_cannot_touch_the_audit_log(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    url = SecretStr(deployment.url("efface"))
    settings = Settings(_env_file=None, database_url=url, path_roots=[tmp_path])  # type: ignore[call-arg]
    engine = make_engine(settings)
    database = Database(engine)
    with database.transaction() as session:
        tenant = api_keys.tenant_named(session, "acme").id
        ending.cancel(
            session, tenant, submission.submit(session, tenant, requests.names_only(tmp_path / "clip"), settings).id
        )
    with database.transaction() as session:
        assert chain.extend(session) >= 2
    engine.dispose()
    forbidden = [
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "ALTER TABLE jobs ADD COLUMN x int",
        "UPDATE audit_log SET action = 'x'",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_heads",
        "DROP TABLE audit_log",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (x int)",
        "SET ROLE efface_owner",
    ]
    for statement in forbidden:
        with psycopg.connect(deployment.url("efface")) as connection, pytest.raises(psycopg.Error) as refused:
            connection.execute(statement)
        assert isinstance(refused.value, psycopg.errors.InsufficientPrivilege), statement
    with psycopg.connect(deployment.url("efface_owner")) as connection:
        found = connection.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname LIKE 'efface%'")
        assert set(found.fetchall()) == {(False, False)}

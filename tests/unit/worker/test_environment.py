"""What a job's process is told, and what of the storage it sees."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shared.ports.object_storage import Storage
from shared.schemas.spec import JobSpec
from shared.settings import Settings
from tests.support import certificates
from worker.environment import child_environment
from worker.narrowed import OutOfBounds, narrowed

OWN = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "1",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "GOOGLE_APPLICATION_CREDENTIALS": "google",
    "HTTPS_PROXY": "http://user:password@proxy",
    "HF_TOKEN": "hub",
    "PGPASSWORD": "x",
    "EFFACE_DATABASE_URL": "postgresql://x",
    "EFFACE_MASTER_KEY": "x",
    "EFFACE_TEST": "x",
    "POSTGRES_PASSWORD": "x",
}


def told(**changes: Any) -> dict[str, str]:
    settings = Settings(_env_file=None, master_key=SecretStr("x"), **changes)  # type: ignore[call-arg]
    return child_environment(settings, OWN)


def test_with_a_folder_it_gets_neither_keys_nor_credentials(tmp_path: Path) -> None:
    environment = told(storage_url=f"file://{tmp_path}")
    assert {name for name in environment if not name.startswith("EFFACE_")} == {
        "PATH", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}  # fmt: skip
    secret = ("DATABASE", "REDIS", "MASTER", "SIGNING", "AUDIT", "OPENDSR", "TEST")
    assert not [name for name in environment if any(word in name for word in secret)]
    assert environment["EFFACE_STORAGE_URL"] == f"file://{tmp_path}"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"storage_url": "s3://bucket"}, {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"}),
        ({"storage_url": "gs://bucket"}, {"GOOGLE_APPLICATION_CREDENTIALS", "HTTPS_PROXY"}),
        ({"allow_hub": True}, {"HF_TOKEN", "HTTPS_PROXY"}),
        ({"child_environment": ["EFFACE_TEST"]}, {"EFFACE_TEST"}),
    ],
)
def test_it_gets_the_credentials_of_its_own_storage_alone(changes: dict[str, Any], more: set[str]) -> None:
    assert set(told(**changes)) & set(OWN) == set(told()) & set(OWN) | more


def test_a_relative_storage_is_the_workers_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert told(storage_url="file://objects")["EFFACE_STORAGE_URL"] == f"file://{tmp_path}/objects"


@pytest.fixture
def spec() -> JobSpec:
    """A job with a model and a data set in the storage."""
    job = certificates.spec()
    uploaded = job.data.evaluation[0].model_copy(update={"uri": "storage:tenants/tnt_1/datasets/ds_1"})
    return job.model_copy(update={"data": job.data.model_copy(update={"evaluation": (uploaded,)})})


def test_a_job_sees_what_it_names(tmp_path: Path, spec: JobSpec) -> None:
    whole = Storage(f"file://{tmp_path}")
    for key in (
        "models/mdl_1/weights",
        "models/mdl_10/weights",
        "tenants/tnt_1/datasets/ds_1",
        "tenants/tnt_2/cache/x",
    ):
        whole.put(key, b"x")
    storage = narrowed(whole, spec)
    assert storage.get("models/mdl_1/weights") == b"x"
    assert [found.key for found in storage.list("models/mdl_1")] == ["models/mdl_1/weights"]
    assert storage.download("tenants/tnt_1/datasets/ds_1", tmp_path / "copy").read_bytes() == b"x"
    storage.put("tenants/tnt_1/jobs/job_1/2/report.json", b"x")
    storage.put("tenants/tnt_1/cache/x", b"x")
    assert storage.delete("tenants/tnt_1/jobs/job_1/2/report.json") == 1


@pytest.mark.parametrize(
    "key",
    ["models/mdl_10/weights", "tenants/tnt_2/cache/x", "tenants/tnt_1/datasets", "tenants/tnt_1/jobs/job_10/1/x",
     "tenants/tnt_1/jobs/job_1/../job_2/x", "audit/head.json"],
)  # fmt: skip
def test_nothing_else(tmp_path: Path, spec: JobSpec, key: str) -> None:
    storage = narrowed(Storage(f"file://{tmp_path}"), spec)
    for reach in (storage.get, storage.list, storage.size, storage.delete, lambda k: list(storage.stream(k))):
        with pytest.raises(OutOfBounds):
            reach(key)


@pytest.mark.parametrize("key", ["models/mdl_1/weights", "tenants/tnt_1/datasets/ds_1"])
def test_what_it_reads_it_may_not_write(tmp_path: Path, spec: JobSpec, key: str) -> None:
    with pytest.raises(OutOfBounds):
        narrowed(Storage(f"file://{tmp_path}"), spec).put(key, b"x")

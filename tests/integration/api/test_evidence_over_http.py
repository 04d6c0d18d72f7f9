"""What a client sees of purges and fetches, and what its requests leave in the audit log."""

from sqlalchemy import select

from services.purging import sweeper
from shared.postgres.tables import AuditEntry
from shared.states import Scope
from tests.support import requests


def upload(client, folder, *classes, **params) -> str:
    path = requests.archive(folder / "up.zip", *classes, images=2)
    answer = client.post("/datasets", params={"name": "up"} | params, content=path.read_bytes())
    assert answer.status_code == 201
    return answer.json()["id"]


def subgroup_body(request_body, forget: str, retain: str) -> dict[str, object]:
    return request_body | {
        "target": {"type": "subgroup", "class": "horse", "subgroup": "sketch", "labels": ["horse", "cow"]},
        "method": {"name": "three_stage"},
        "data": {"forget": forget, "retain": retain},
    }


def test_a_receipt_says_what_was_deleted(alice, alice_client, bob, request_body, database, storage, settings, tmp_path):
    forget, retain = upload(alice, tmp_path, "horse"), upload(alice, tmp_path, "horse", "cow")
    job = alice.post("/jobs", json=subgroup_body(request_body, forget, retain)).json()["id"]
    early = alice.get(f"/jobs/{job}/purge-receipt")
    assert (early.status_code, early.json()["code"]) == (409, "conflict")

    alice.post(f"/jobs/{job}/cancel")
    assert alice.get(f"/jobs/{job}/purge-receipt").json()["complete"] is False
    sweeper.sweep_jobs(database, storage)
    sweeper.sweep_datasets(database, storage, settings)

    receipt = alice_client.purge_receipt(job)
    states = {entry.dataset: entry.state for entry in receipt.datasets}
    assert (receipt.complete, states) == (True, {forget: "purged", retain: "kept"})
    assert alice.get(f"/datasets/{forget}").status_code == 404
    assert bob.get(f"/jobs/{job}/purge-receipt").status_code == 404
    again = alice.post("/jobs", json=subgroup_body(request_body, forget, retain))
    assert (again.status_code, again.json()["errors"][0]["pointer"]) == (422, "/data/forget")


def test_an_upload_says_whether_it_is_purged(alice, tmp_path):
    for said, kept in ((None, None), ("true", True), ("false", False)):
        dataset = upload(alice, tmp_path, "horse", **({"purge_after_job": said} if said else {}))
        assert alice.get(f"/datasets/{dataset}").json()["purge_after_job"] is kept
    archive = requests.archive(tmp_path / "up.zip", "horse").read_bytes()
    refused = alice.post("/datasets", params={"name": "up", "purge_after_job": "maybe"}, content=archive)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/purge_after_job")


def test_without_a_master_key_nothing_is_stored(serve, settings, make_key, storage, tmp_path):
    import httpx

    url = serve(settings.model_copy(update={"master_key": None}))
    archive = requests.archive(tmp_path / "up.zip", "horse").read_bytes()
    headers = {"Authorization": f"Bearer {make_key()}"}
    answer = httpx.post(f"{url}/datasets?name=up", content=archive, headers=headers)
    assert answer.status_code == 503
    assert "EFFACE_MASTER_KEY" in answer.json()["detail"]
    assert storage.list("tenants") == []


def test_who_has_fetched_a_models_weights(alice, bob, connect, make_job):
    job = make_job.succeeded()
    model = alice.get(f"/jobs/{job}").json()["result_model"]
    assert alice.get(f"/models/{model}/fetches").json()["data"] == []
    etag = alice.get(f"/jobs/{job}/weights").headers["ETag"]
    alice.get(f"/jobs/{job}/weights", headers={"Range": "bytes=5-9"})
    alice.get(f"/jobs/{job}/weights", headers={"If-None-Match": etag})  # gives nothing out
    alice.get(f"/jobs/{job}/weights", params={"file": "open_clip_config.json"})

    (fetch,) = alice.get(f"/models/{model}/fetches").json()["data"]
    assert (fetch["count"], fetch["job"], fetch["key"][:4]) == (2, job, "key_")
    assert bob.get(f"/models/{model}/fetches").status_code == 404
    assert connect("alice", (Scope.JOBS_READ,)).get(f"/models/{model}/fetches").status_code == 403


def test_requests_are_audited_under_their_key(alice, database, make_job, request_body, tmp_path):
    job = alice.post("/jobs", json=request_body).json()["id"]
    alice.post(f"/jobs/{job}/cancel")
    done = make_job.succeeded()
    alice.get(f"/jobs/{done}/report")
    alice.get(f"/jobs/{done}/weights")
    dataset = upload(alice, tmp_path, "horse")
    with database.transaction() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.actor.like("key_%")).order_by(AuditEntry.id)).all()
    assert len({row.actor for row in rows}) == 1
    assert [(row.action, row.subject) for row in rows] == [
        ("job.submitted", job),
        ("job.cancelled", job),
        ("report.fetched", done),
        ("weights.fetched", done),
        ("dataset.uploaded", dataset),
    ]

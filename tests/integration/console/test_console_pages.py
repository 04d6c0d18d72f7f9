"""The console as people use it, over HTTP and without a script: each page, and what can be done there."""

import csv
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rfc8785

from services.access import api_keys
from services.audit_log import chain
from services.jobs import lifecycle
from services.webhooks import endpoints
from shared.schemas.webhook import WebhookRegistration
from shared.states import Stage
from tests.integration.console.conftest import Browser, World
from tests.support.problems import assert_problem
from tests.support.reports import report

PAGES = (
    "/",
    "/erasures",
    "/new",
    "/models",
    "/data-sets",
    "/records",
    "/records/deliveries",
    "/records/processing",
    "/service",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_and_marks_where_one_is(alice: Browser, path: str) -> None:
    page = alice.page(f"/console{path}")
    assert page.count('aria-current="page"') >= 1
    assert page.count("<h1") == 1


def test_the_list_says_what_is_due_and_how_it_stands(world: World, alice: Browser) -> None:
    received = datetime.now(UTC) - timedelta(days=29)
    urgent = world.jobs.queued(external_id="LIST-urgent", received_at=received.isoformat())
    held = world.jobs.queued(external_id="LIST-held")
    alice.post(f"/console/erasures/{held}/decide/hold", reason="who is it?")
    world.jobs.finish(running := world.jobs.running(external_id="LIST-missed"), passed=False)

    page = alice.page("/console/erasures?q=LIST-")
    rows = {job: page.split(f"/console/erasures/{job}")[1].split("</li>")[0] for job in (urgent, held, running)}

    assert 'class="due soon"' in rows[urgent]
    assert "On hold" in rows[held]
    assert "clock stopped" in rows[held]
    assert "Missed" in rows[running]


def test_filters_are_those_of_the_api_and_stay_in_the_address(world: World, alice: Browser) -> None:
    first = world.jobs.queued(external_id="FILTER-1", received_at="2026-01-05T09:00:00Z")
    second = world.jobs.queued(external_id="FILTER-2", received_at="2026-03-05T09:00:00Z")
    api = world.api()

    def listed(query: str) -> list[str]:
        page = alice.page(f"/console/erasures?q=filter-&{query}")
        found = [job for job in (first, second) if f'href="/console/erasures/{job}"' in page]
        return sorted(found, key=page.index)

    assert listed("") == [second, first]
    assert listed("sort=due") == [first, second]
    assert listed("due_before=2026-02-05") == [first]
    assert listed("due_before=2026-02-04") == []
    assert listed("state=ended") == []
    assert listed("state=open&method=synthetic&model=mdl_alice&verdict=") == [second, first]
    asked = {"q": "filter-", "sort": "due", "due_before": "2026-02-06T00:00:00Z", "unfinished": "true"}
    assert [job["id"] for job in api.get("/jobs", params=asked).json()["data"]] == [first]
    page = alice.page("/console/erasures?q=filter-&sort=due&due_before=2026-02-05")
    assert 'value="2026-02-05"' in page
    assert "/console/erasures.csv?q=filter-&amp;due_before=2026-02-05&amp;sort=due" in page


def test_an_address_that_asks_for_nonsense_is_told_what_is_wrong(alice: Browser) -> None:
    response = alice.get("/console/erasures?state=dead&due_before=someday")
    assert response.status_code == 422
    assert "state is one of" in response.text
    assert "due_before is a day" in response.text


@pytest.mark.parametrize("by", ["newest", "due"])
def test_the_list_is_paged_without_gaps_or_twins(world: World, alice: Browser, by: str) -> None:
    name = f"PAGED-{by}"
    made = [world.jobs.queued(external_id=f"{name}-{n}", received_at="2026-05-05T09:00:00Z") for n in range(3)]
    api = world.api()

    seen, query = [], {"q": name, "sort": by, "limit": "2"}
    while True:
        page = api.get("/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = seen[-1]

    assert seen == (made if by == "due" else made[::-1])
    assert_problem(api.get("/jobs", params={"after": "job_x", "sort": by}), 422, "invalid_request")


def test_the_list_as_csv_holds_no_formula(world: World, alice: Browser) -> None:
    job = world.jobs.queued(external_id="=cmd|' /C calc'!A0")

    response = alice.get("/console/erasures.csv?q=calc")

    assert response.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert (row["id"], row["external_id"], row["state"]) == (job, "'=cmd|' /C calc'!A0", "queued")


def test_an_erasure_that_missed_says_what_was_measured_and_what_to_try(world: World, alice: Browser) -> None:
    labels = ["horse", "cow"]
    threshold = {"measure": "max_forget_accuracy", "limit": 0.05, "value": 0.31, "passed": False, "where": "objects"}
    job = world.jobs.running(external_id="MISSED-1")
    target = {
        "accuracy": {"before": {"value": 0.9, "n": 80, "low": 0.81, "high": 0.95}}
        | {"after": {"value": 0.31, "n": 80, "low": 0.22, "high": 0.42}},
        "synthetic_accuracy": None,
        "siblings": None,
    }
    whole = report(labels, verdict="failed", thresholds=[threshold], target=target)
    world.jobs.finish(job, passed=False, report=whole.model_dump_json(by_alias=True).encode())

    page = alice.page(f"/console/erasures/{job}")

    for shown in ("31.0 %", "22.0 % to 42.0 %", ">80<", "at most 5.0 %", "90.0 %", "missed"):
        assert shown in page
    assert f"/console/new?base={job}&amp;method=auto" in page
    assert f"/console/new?base={job}&amp;max_forget_accuracy=31" in page
    assert "weights" not in page.split("To show and to keep")[1].split("</ul>")[0].replace("quarantined_weights", "")
    form = alice.page(f"/console/new?base={job}&max_forget_accuracy=31&method=auto")
    assert 'name="max_forget_accuracy" inputmode="decimal" value="31"' in form
    assert 'value="MISSED-1"' in form
    assert 'value="auto" checked' in form


def test_the_page_of_a_job_with_a_thousand_events_shows_the_last_ones(world: World, alice: Browser) -> None:
    job = world.jobs.running()
    with world.database.transaction() as session:
        for number in range(330):
            lifecycle.enter_stage(session, job, 1, (Stage.FORGETTING, Stage.AUDITING)[number % 2])
    page = alice.page(f"/console/erasures/{job}")
    assert page.count('<li><span class="at">') == 300
    assert "32 earlier entries are left out" in page


@pytest.mark.parametrize(
    "path", ["report", "report.json", "certificate.json", "weights", "config", "purge-receipt.json"]
)
def test_what_an_erasure_left_opens_and_the_fetch_is_on_record(world: World, alice: Browser, path: str) -> None:
    job = world.jobs.succeeded()
    response = alice.get(f"/console/erasures/{job}/{path}")
    if path == "certificate.json":  # no relay runs here: it is still to come, and says so
        assert response.status_code == 409
        return
    assert response.status_code == 200
    log = alice.page(f"/console/records?subject={job}")
    assert ("report.fetched" in log) == path.startswith("report")
    assert ("weights.fetched" in log) == (path == "weights")
    if path != "purge-receipt.json" and path != "config":
        assert ">Ada<" in log.replace("\n", "")


def test_decisions_are_asked_for_with_their_consequences_and_are_the_persons(world: World, alice: Browser) -> None:
    job = world.jobs.queued(external_id="DECIDE-1")
    at = f"/console/erasures/{job}/decide"

    for verb, said, fields in (
        ("hold", "12(6)", {"reason": "who is it?\r\n proof was asked for"}),
        ("release", "goes back to its place", {}),
        ("extend", "two months", {"reason": "four models"}),
        ("refuse", "17(3)", {"ground": "legal_claims", "reason": ""}),
    ):
        assert said in alice.page(f"{at}/{verb}")
        response = alice.post(f"{at}/{verb}", **fields)
        assert response.status_code == 303, response.text

    page = alice.page(f"/console/erasures/{job}?done=refused")
    assert "Refused: Legal claims (Art. 17(3)(e))" in page
    assert "who is it? proof was asked for" in page
    with world.database.transaction() as session:
        while chain.extend(session):
            pass
    exported = alice.get("/console/records/log.jsonl").text.splitlines()[1:]
    entries = [json.loads(line)["entry"] for line in exported]
    mine = {entry["action"]: entry["detail"].get("person") for entry in entries if entry["subject"] == job}
    assert mine.keys() >= {"job.held", "job.released", "job.extended", "job.refused", "job.cancelled"}
    assert {mine[f"job.{verb}"] for verb in ("held", "released", "extended", "refused", "cancelled")} == {"Ada"}


def test_a_decision_that_is_not_possible_or_has_no_reason_is_refused_in_words(world: World, alice: Browser) -> None:
    job = world.jobs.queued()
    at = f"/console/erasures/{job}/decide"
    token = alice.token(f"{at}/hold")

    assert alice.post(f"{at}/hold", token=token, reason="  ").status_code == 422
    assert "Choose the ground" in alice.post(f"{at}/refuse", token=token).text
    assert alice.post(f"{at}/release", token=token).status_code == 409
    assert alice.post(f"{at}/explode", token=token).status_code == 404
    alice.post(f"{at}/cancel", token=token)
    assert "not possible as the erasure stands" in alice.page(f"{at}/hold")


def upload(alice: Browser, archive: Path, to: str = "/console/data-sets", **headers: str):
    token = alice.token(to)
    content = archive.read_bytes()
    files = {"file": (archive.name, content, "application/zip")}
    return alice.http.post(f"{to}?csrf={token}", files=files, headers={"Origin": alice.url, **headers})


def test_an_erasure_is_started_by_the_form(world: World, alice: Browser, archive: Path) -> None:
    made = upload(alice, archive, Accept="application/json")
    assert made.status_code == 201, made.text
    dataset = made.json()["id"]
    fields = {
        "model": "mdl_alice",
        "kind": "class",
        "class_name": "horse",
        "method": "synthetic",
        "evaluation": dataset,
        "max_forget_accuracy": "10",
        "external_id": "FORM-1",
        "received_on": "2026-11-02",
    }
    assert "farm.zip" in alice.page("/console/new")

    checked = alice.post("/console/new/check", form_at="/console/new", **fields)
    assert "This is ready to start" in checked.text
    assert "2 images of what is to be forgotten" in checked.text
    assert "<html" not in checked.text
    made = alice.post("/console/new", once="one", action="submit", **fields)
    again = alice.post("/console/new", once="one", action="submit", **fields)

    assert made.status_code == again.status_code == 303
    assert made.headers["location"] == again.headers["location"]
    job = world.api().get("/jobs", params={"external_id": "FORM-1"}).json()["data"]
    assert len(job) == 1
    request = job[0]["request"]
    assert request["target"]["labels"] == ["cow", "horse"]
    assert request["data"]["evaluation"] == [{"name": "farm.zip", "dataset": dataset}]
    assert request["thresholds"]["max_forget_accuracy"] == 0.1
    assert job[0]["due_at"].startswith("2026-12-02")
    kept = alice.page(f"/console/data-sets/{dataset}")
    assert "kept while 1 erasure uses it" in kept
    assert alice.post(f"/console/data-sets/{dataset}/delete", form_at="/console/data-sets").status_code == 409


def test_a_form_that_is_wrong_is_shown_again_with_what_is_wrong_beside_the_fields(alice: Browser) -> None:
    response = alice.post(
        "/console/new",
        action="submit",
        model="mdl_alice",
        kind="class",
        class_name="horse",
        labels="cow\ndog",
        method="three_stage",
        max_retain_drop="much",
    )
    assert response.status_code == 422
    assert 'id="max_retain_drop-why">is a share in percent' in response.text
    assert ">cow\ndog</textarea>" in response.text
    response = alice.post(
        "/console/new", action="check", model="mdl_alice", kind="class", class_name="horse", labels="cow\ndog"
    )
    assert "is not among the labels" in response.text


def test_again_with_changes_keeps_what_the_form_does_not_show(world: World, alice: Browser, archive: Path) -> None:
    special = {
        "method": {"name": "synthetic", "parameters": {"mode": "faithful"}},
        "metadata": {"desk": "privacy"},
        "seed": 7,
    }
    job = world.jobs.queued(**special)
    dataset = upload(alice, archive, Accept="application/json").json()["id"]
    form = {"base": job, "model": "mdl_alice", "kind": "class", "class_name": "horse", "labels": "horse\ncow\ndog"}

    made = alice.post("/console/new", action="submit", method="synthetic", external_id="AGAIN-1", **form)
    other = alice.post(
        "/console/new", action="submit", method="null_space", external_id="AGAIN-2", evaluation=dataset, **form
    )

    assert (made.status_code, other.status_code) == (303, 303), made.text
    found = {j["external_id"]: j["request"] for j in world.api().get("/jobs", params={"q": "AGAIN-"}).json()["data"]}
    assert found["AGAIN-1"]["method"] == special["method"]
    assert found["AGAIN-1"]["metadata"] == {"desk": "privacy"}
    assert found["AGAIN-1"]["seed"] == 7
    assert found["AGAIN-1"]["target"]["labels"] == ["horse", "cow", "dog"]
    assert found["AGAIN-2"]["method"]["name"] == "null_space"
    assert found["AGAIN-2"]["method"].get("parameters", {}) == {}


def test_models_are_trees_and_deleting_one_says_what_depends_on_it(world: World, alice: Browser) -> None:
    job = world.jobs.succeeded()
    child = world.api().get(f"/jobs/{job}").json()["result_model"]

    page = alice.page("/console/models")
    assert page.index("/console/models/mdl_alice") < page.index(f"/console/models/{child}")
    assert "superseded" in page
    ask = alice.page(f"/console/models/{child}/delete")
    assert "hands its weights out no longer" in ask
    busy = world.jobs.queued()
    assert busy in alice.page("/console/models/mdl_alice/delete")
    assert alice.post("/console/models/mdl_alice/delete", form_at="/console/models").status_code == 409
    deleted = alice.post(f"/console/models/{child}/delete")
    assert deleted.headers["location"] == "/console/models?done=model_deleted"
    assert child not in alice.page("/console/models")
    assert "its model was deleted" in alice.page(f"/console/erasures/{job}")


def test_a_deleted_data_set_leaves_its_receipt(alice: Browser, archive: Path) -> None:
    location = upload(alice, archive).headers["location"]
    assert location == "/console/data-sets?done=uploaded"
    page = alice.page("/console/data-sets")
    dataset = page.split("/console/data-sets/ds_")[1].split('"')[0]
    at = f"/console/data-sets/ds_{dataset}"
    assert "not used yet; deleted" in alice.page(at)

    assert alice.post(f"{at}/delete", form_at=at).status_code == 303

    assert "its owner deleted it" in alice.page(at)
    assert "its owner deleted it" in alice.page("/console/data-sets")


def test_a_bad_archive_is_refused_in_words(alice: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no archive")
    assert_problem(upload(alice, bad, Accept="application/json"), 422, "invalid_request")
    assert "<h1>" in upload(alice, bad).text


def test_the_chain_is_checked_and_each_exported_entry_proves_itself(world: World, alice: Browser) -> None:
    with world.database.transaction() as session:
        while chain.extend(session):
            pass
    assert "was computed again and is right" in alice.post("/console/records/check", form_at="/console/records").text

    lines = [json.loads(line) for line in alice.get("/console/records/log.jsonl").text.splitlines()]
    assert lines[0].keys() == {"head"}
    linked = [line for line in lines[1:] if line["seq"] is not None]
    assert linked
    for line in linked:
        body = {"seq": line["seq"], "previous": line["previous"], "entry": line["entry"]}
        assert hashlib.sha256(rfc8785.dumps(body)).hexdigest() == line["hash"]
    assert len({line["entry"]["tenant"] for line in lines[1:]}) == 1


def test_deliveries_are_shown_and_made_again(world: World) -> None:
    carol = world.signed_in("carol")
    with world.database.transaction() as session:
        tenant = api_keys.tenant_named(session, "carol").id
        endpoints.register(session, tenant, WebhookRegistration(url="https://desk.example.com/x"), world.settings)
    assert "https://desk.example.com/x" in carol.page("/console/records/deliveries")


def test_the_record_of_processing_tells_of_one_tenant(alice: Browser, bob: Browser) -> None:
    assert [one["name"] for one in alice.get("/console/records/processing.json").json()["controllers"]] == ["alice"]
    assert "On behalf of bob" in bob.page("/console/records/processing")


def test_the_page_of_a_running_erasure_hears_of_news(world: World, alice: Browser) -> None:
    job = world.jobs.running()
    page = alice.page(f"/console/erasures/{job}")
    connect = page.split('sse-connect="')[1].split('"')[0]
    with alice.http.stream("GET", connect, headers={"Accept": "text/event-stream"}, timeout=20) as stream:
        lines = stream.iter_lines()
        world.jobs.enter(job, Stage.FORGETTING)
        assert next(line for line in lines if line.startswith("event:")) == "event: news"
        world.jobs.finish(job, passed=True)
        rest = list(lines)  # it ends with the erasure
    assert "event: news" in rest
    assert [line for line in rest if line.startswith("event:")][-1] == "event: ended"
    assert "forgetting" not in alice.page(f"/console/erasures/{job}/live").split("What happened")[0]
    assert alice.get(connect.split("?")[0] + "?after=100000", Accept="text/event-stream").status_code == 204

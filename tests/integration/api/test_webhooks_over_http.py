"""Webhooks from the outside: register, receive, look, replay, rotate, delete."""

from ipaddress import ip_network

import pytest
from standardwebhooks.webhooks import Webhook

from api.examples import WEBHOOK
from tests.integration.api.test_access import assert_problem
from tests.support.fleet import wait_until
from tests.support.receiver import receiving

LISTED = {"object": "list", "data": [], "has_more": False}


@pytest.fixture
def loopback(settings):
    """The operator allows loopback."""
    settings.webhook_allow_networks.append(ip_network("127.0.0.0/8"))


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture
def webhook(loopback, alice, receiver):
    """A registered endpoint."""
    response = alice.post("/webhooks", json={"url": receiver.url, "description": "compliance desk"})
    assert response.status_code == 201, response.text
    return response.json()


def test_the_secret_is_shown_once(alice, webhook, receiver):
    shown = alice.get(f"/webhooks/{webhook['id']}").json()

    assert webhook["secret"].startswith("whsec_")
    assert webhook["public_key"].startswith("whpk_")
    assert webhook == shown | {"secret": webhook["secret"]}
    assert shown["url"] == receiver.url
    assert set(shown["events"]) == {
        "job.succeeded", "job.failed", "job.cancelled", "job.deadline_at_risk", "job.superseded_model"
    }  # fmt: skip
    assert alice.get("/webhooks").json() == LISTED | {"data": [shown]}


def test_from_the_event_to_the_receiver_and_back(alice, webhook, receiver, make_job, fleet):
    job_id = make_job.queued()
    path = f"/webhooks/{webhook['id']}/deliveries"
    with fleet.relay():
        alice.post(f"/jobs/{job_id}/cancel")
        wait_until(lambda: receiver.calls, "nothing arrived")
        wait_until(lambda: alice.get(path, params={"state": "delivered"}).json()["data"], "it is not in the log")
        (delivery,) = alice.get(path).json()["data"]
        replayed = alice.post(f"{path}/{delivery['id']}/replay")
        wait_until(lambda: len(receiver.calls) == 2, "it was not replayed")

    assert (replayed.status_code, replayed.json()["state"]) == (202, "pending")
    body = Webhook(webhook["secret"]).verify(receiver.calls[0].body, dict(receiver.calls[0].headers))
    assert (body["type"], body["data"]["job"], delivery["job"]) == ("job.cancelled", job_id, job_id)
    assert [attempt["status"] for attempt in delivery["attempts"]] == [204]
    assert alice.get(path, params={"state": "failed"}).json() == LISTED


def test_a_rotation_gives_a_new_secret(alice, webhook):
    rotated = alice.post(f"/webhooks/{webhook['id']}/rotate").json()

    assert rotated["secret"] != webhook["secret"]
    assert rotated["previous_secret_expires_at"] is not None
    assert "secret" not in alice.get(f"/webhooks/{webhook['id']}").json()


def test_a_deleted_endpoint_is_gone(alice, webhook):
    assert alice.delete(f"/webhooks/{webhook['id']}").status_code == 204
    for method in ("GET", "DELETE"):
        assert_problem(alice.request(method, f"/webhooks/{webhook['id']}"), 404, "not_found")


def test_another_tenants_endpoint_is_not_there(alice, bob, webhook, make_job):
    alice.post(f"/jobs/{make_job.queued()}/cancel")
    path = f"/webhooks/{webhook['id']}"
    (delivery,) = alice.get(f"{path}/deliveries").json()["data"]
    for method, of_it in [("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/deliveries"),
                          ("POST", f"/deliveries/{delivery['id']}/replay")]:  # fmt: skip
        assert_problem(bob.request(method, path + of_it), 404, "not_found")
    assert bob.get("/webhooks").json() == LISTED
    problem = assert_problem(alice.post(f"{path}/deliveries/msg_x/replay"), 404, "not_found")
    assert f"{path}/deliveries" in problem["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data/",
        "https://nowhere.invalid/",
        "https://user:password@1.1.1.1/",
        "https://1.1.1.1/#part",
        "http://1.1.1.1/",
        "ftp://1.1.1.1/",
        "https:///path",
        "https://1.1.1.1:99999/",
        "https://\u2028/",
        "https://exa mple/",
        "https://xn--/",
        "https://xn--a.com/",
        "//1.1.1.1/",
        "nonsense",
        "",
    ],
)
def test_what_may_not_be_called_is_not_registered(alice, url):
    problem = assert_problem(alice.post("/webhooks", json={"url": url}), 422, "invalid_request")

    assert [error["pointer"] for error in problem["errors"]] == ["/url"]
    assert alice.get("/webhooks").json() == LISTED


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [({"events": []}, "/events"), ({"events": ["job.progress"]}, "/events/0"), ({"secret": "x"}, "/secret")],
)
def test_wrong_fields_are_named(alice, changes, pointer):
    response = alice.post("/webhooks", json={"url": "https://1.1.1.1/"} | changes)

    assert [e["pointer"] for e in assert_problem(response, 422, "invalid_request")["errors"]] == [pointer]


def test_without_a_master_key_the_answer_says_what_to_do(loopback, serve, settings, make_key, receiver):
    import httpx

    url = serve(settings.model_copy(update={"master_key": None}))
    headers = {"Authorization": f"Bearer {make_key()}"}
    response = httpx.post(f"{url}/webhooks", json={"url": receiver.url}, headers=headers)

    assert "EFFACE_MASTER_KEY" in assert_problem(response, 503, "unavailable")["detail"]


@pytest.mark.parametrize("name", WEBHOOK)
def test_the_examples_of_the_documentation_are_sound_but_for_their_url(loopback, alice, receiver, name):
    response = alice.post("/webhooks", json=WEBHOOK[name]["value"] | {"url": receiver.url})

    assert response.status_code == 201

"""Every route of the OpenAPI document: no key 401, a key without its scope 403, another tenant 404 or an empty list.

The routes are read from the document itself. One that is added is tested at once; one that names no scope, has a path
parameter that is not known here, or a body without an example, fails.
"""

import io
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from api.app import create_app
from api.examples import SUBJECT_REQUEST
from services.access import api_keys
from services.webhooks import endpoints
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.schemas.webhook import WebhookRegistration
from shared.settings import Settings
from shared.states import Scope
from tests.integration.api.conftest import JobMaker, sound_request
from tests.support.parts import PROCESSOR_DOMAIN, emptied_database, make_settings
from tests.support.problems import assert_problem
from tests.support.requests import png
from tests.support.servers import serving

OPEN = {
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("post", "/oauth/token"),
    ("get", "/.well-known/efface-keys.json"),
    ("get", "/schemas/certificate-1.json"),
    ("get", "/schemas/report-1.0.json"),
    ("get", "/opendsr/v2/certificate.pem"),
}
"""What needs no key."""
ANY_KEY = {("get", "/version"), ("get", "/opendsr/v2/discovery")}
"""What tells of the service, not of a tenant."""
DEPLOYMENT = {("get", "/metrics")}
"""What tells of all tenants together, and needs a scope of its own."""
CREATES = {("post", "/jobs"), ("post", "/models"), ("post", "/datasets"), ("post", "/keys"), ("post", "/webhooks")} | {
    ("post", "/opendsr/v2/requests"),
    ("post", "/opendsr/v2/opengdpr_requests"),
    ("post", "/integrations/fides/jobs"),
}
"""What names nothing that could be another tenant's, but in its body (see test_access)."""

SHARED = {("get", "/workers")}
"""What administrators of every tenant see alike, but for whose job it is (see test_service_over_http)."""


class Route(NamedTuple):
    method: str
    path: str
    operation: dict[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        return self.method, self.path

    @property
    def scope(self) -> Scope:
        """The one scope that the document asks for."""
        (scope,) = (scope for way in self.operation["security"] for scopes in way.values() for scope in scopes)
        return Scope(scope)

    @property
    def body(self) -> dict[str, Any]:
        """The first example of the body, as httpx takes it."""
        content = self.operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            media = content["application/json"]
            return {"json": media["example"] if "example" in media else next(iter(media["examples"].values()))["value"]}
        return {"content": b"x"} if content else {}

    def send(self, client: httpx.Client, ids: dict[str, str]) -> httpx.Response:
        return client.request(self.method, self.path.format_map(ids), **self.body)


DOCUMENT = create_app(Settings(_env_file=None)).openapi()  # type: ignore[call-arg]
ROUTES = [
    Route(method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
CLOSED = [route for route in ROUTES if route.name not in OPEN]
SCOPED = [route for route in CLOSED if route.name not in ANY_KEY]
OWNED = [route for route in SCOPED if route.name not in CREATES | SHARED | DEPLOYMENT]


def every(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=[f"{route.method.upper()} {route.path}" for route in routes])


class _Nothing(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"{name}_x"


NOTHING = _Nothing()
"""Fills every path parameter with an id that nobody has."""


class World(NamedTuple):
    """A server with two tenants, and what makes things of alice's."""

    url: str
    database: Database
    jobs: JobMaker

    def connect(self, tenant: str, *scopes: Scope) -> httpx.Client:
        """Return a connection with a new key."""
        with self.database.transaction() as session:
            _, secret = api_keys.create(session, tenant=tenant, name="test", scopes=scopes or [Scope.ADMIN])
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {secret}"}, timeout=20)

    def things(self, alice: httpx.Client) -> dict[str, str]:
        """Make one thing of alice's for every path parameter there is."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for name in ("horse", "cow"):
                file.writestr(f"{name}/1.png", png(0))
        added = alice.post("/datasets", content=archive.getvalue(), params={"name": "farm"}).json()
        with self.database.transaction() as session:
            key, _ = api_keys.create(session, tenant="alice", name="spare", scopes=[Scope.JOBS_READ])
        endpoint = self.endpoint(alice)
        job = self.jobs.succeeded()
        delivery = alice.get(f"/webhooks/{endpoint}/deliveries").json()["data"][0]["id"]
        subject_request = str(uuid4())
        made = alice.post("/opendsr/v2/requests", json=self.subject_request(subject_request))
        assert made.status_code == 201, made.text
        return {
            "subject_request_id": subject_request,
            "job_id": job,
            "model_id": "mdl_alice",
            "dataset_id": added["id"],
            "key_id": key.id,
            "webhook_id": endpoint,
            "delivery_id": delivery,
        }

    def endpoint(self, alice: httpx.Client) -> str:
        """Return a webhook of alice's; a new one only where there is none, for a tenant may have few."""
        if listed := alice.get("/webhooks").json()["data"]:
            return str(listed[0]["id"])
        wanted = WebhookRegistration(url="https://compliance.example.com/efface")
        with self.database.transaction() as session:
            return endpoints.register(session, self.jobs.tenant_id(session), wanted, self.jobs.settings).id

    def subject_request(self, subject_request_id: str) -> dict[str, Any]:
        """Return an OpenDSR request about alice's model."""
        example = SUBJECT_REQUEST["erasure"]["value"] | {"subject_request_id": subject_request_id}
        return example | {"extensions": {PROCESSOR_DOMAIN: self.jobs.request}}


@pytest.fixture(scope="module")
def world(postgres_url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server for all of these tests: each looks only at what it has made itself."""
    settings = make_settings(postgres_url, redis_server, tmp_path_factory.mktemp("every_route"))
    with emptied_database(settings) as database, capture_logs(), serving(settings) as url:
        maker = JobMaker(database, Storage(settings.storage_url), settings, sound_request(database))
        yield World(url, database, maker)


@pytest.fixture(scope="module")
def alice(world: World) -> Iterator[httpx.Client]:
    with world.connect("alice") as client:
        yield client


@pytest.fixture(scope="module")
def bob(world: World) -> Iterator[httpx.Client]:
    with world.connect("bob") as client:
        yield client


def test_what_is_listed_above_is_still_there():
    assert {route.name for route in ROUTES} >= OPEN | ANY_KEY | DEPLOYMENT | CREATES


@every(CLOSED)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer efk_wrong"}], ids=["no key", "unknown key"])
def test_no_key_is_401(world: World, route: Route, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=world.url, headers=headers) as stranger:
        response = route.send(stranger, NOTHING)

    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@every(SCOPED)
def test_a_key_without_the_scope_is_403(world: World, route: Route) -> None:
    others = tuple(scope for scope in Scope if scope not in (route.scope, Scope.ADMIN))
    with world.connect("carol", *others) as lacking, world.connect("carol", route.scope) as having:
        refused = route.send(lacking, NOTHING)
        allowed = route.send(having, NOTHING)

    assert route.scope in assert_problem(refused, 403, "forbidden")["detail"]
    assert allowed.status_code in (200, 201, 400, 404, 422)  # 400: what OpenDSR calls 422, allowed.text


@every([route for route in CLOSED if route.name in ANY_KEY])
def test_any_key_opens_what_tells_of_the_service(world: World, route: Route) -> None:
    with world.connect("carol", Scope.DATASETS_READ) as client:
        assert route.send(client, NOTHING).status_code == 200


@every(OWNED)
def test_another_tenants_things_do_not_exist(
    world: World, alice: httpx.Client, bob: httpx.Client, route: Route
) -> None:
    things = world.things(alice)
    own = [f"/jobs/{things['job_id']}", f"/keys/{things['key_id']}", f"/datasets/{things['dataset_id']}"]
    before = [alice.get(path).json() for path in own]
    seen_by_bob = route.send(bob, things)
    after = [alice.get(path).json() for path in own]
    seen_by_alice = route.send(alice, things)

    assert before == after
    if "{" in route.path:
        assert_problem(seen_by_bob, 404, "not_found")
        assert seen_by_alice.status_code in (200, 202, 204, 409), (
            seen_by_alice.text
        )  # 409: it is there, but in another state
    else:
        mine = {item["id"] for item in seen_by_alice.json()["data"]}
        assert mine
        assert not mine & {item["id"] for item in seen_by_bob.json()["data"]}

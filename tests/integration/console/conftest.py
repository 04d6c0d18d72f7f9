"""One server for all tests of the console, two tenants, and browsers without a script."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from services.access import api_keys
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.settings import Settings
from shared.states import Scope
from tests.integration.api.conftest import JobMaker, sound_request
from tests.support.parts import emptied_database, make_settings
from tests.support.requests import png
from tests.support.servers import serving

TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


class Browser:
    """Somebody at the console: keeps cookies, follows nothing by itself, and sends forms as a browser does."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, headers={"Accept": "text/html"})
        self.url = url

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def page(self, path: str) -> str:
        """Open a page that must be there."""
        response = self.get(path)
        assert response.status_code == 200, (path, response.status_code, response.text[-2000:])
        return response.text

    def token(self, path: str = "/console/") -> str:
        """Return the token of a page's form."""
        found = TOKEN.search(self.page(path))
        assert found, f"{path} has no form with a token"
        return found[1]

    def post(
        self, path: str, *, token: str | None = None, form_at: str | None = None, **fields: object
    ) -> httpx.Response:
        """Send a form with the token of the page that it stands on."""
        csrf = self.token(form_at or path) if token is None else token
        headers = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        return self.http.post(path, data={"csrf": csrf, **fields}, headers=headers)

    def sign_in(self, key: str, person: str = "Ada") -> "Browser":
        response = self.post("/console/sign-in", key=key, person=person)
        assert response.status_code == 303, response.text
        return self


class World:
    """A server, and what makes things of alice's."""

    def __init__(self, url: str, database: Database, jobs: JobMaker, settings: Settings, stack: ExitStack) -> None:
        self.url, self.database, self.jobs, self.settings = url, database, jobs, settings
        self._stack = stack

    def key(self, tenant: str, *scopes: Scope) -> tuple[str, str]:
        """Make a key; return its id and its secret."""
        with self.database.transaction() as session:
            key, secret = api_keys.create(session, tenant=tenant, name=f"{tenant}'s", scopes=scopes or (Scope.ADMIN,))
            return key.id, secret

    def browser(self) -> Browser:
        browser = Browser(self.url)
        self._stack.callback(browser.http.close)
        return browser

    def signed_in(self, tenant: str = "alice", *scopes: Scope, person: str = "Ada") -> Browser:
        return self.browser().sign_in(self.key(tenant, *scopes)[1], person)

    def api(self, tenant: str = "alice") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key(tenant)[1]}"}
        return self._stack.enter_context(httpx.Client(base_url=self.url, headers=headers, timeout=30))


@pytest.fixture(scope="module")
def world(postgres_url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = make_settings(postgres_url, redis_server, tmp_path_factory.mktemp("console"))
    with ExitStack() as stack:
        database = stack.enter_context(emptied_database(settings))
        stack.enter_context(capture_logs())
        url = stack.enter_context(serving(settings))
        maker = JobMaker(database, Storage(settings.storage_url), settings, sound_request(database))
        yield World(url, database, maker, settings, stack)


@pytest.fixture(scope="module")
def alice(world: World) -> Browser:
    """Somebody of alice's who may do everything."""
    return world.signed_in("alice")


@pytest.fixture(scope="module")
def bob(world: World) -> Browser:
    """Somebody of another tenant who may do everything there."""
    return world.signed_in("bob", person="Bob")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip of two classes, two images each."""
    path = tmp_path / "farm.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(("horse/1.png", "horse/2.png", "cow/1.png", "cow/2.png")):
            file.writestr(name, png(number))
    return path

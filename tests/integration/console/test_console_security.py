"""Who may come into the console, and what nobody may do there: every route is asked."""

import hashlib
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import func, update

from api.console import pages
from services.access import api_keys, console_sessions
from shared.postgres.tables import ConsoleLink, ConsoleSession
from shared.states import Scope
from tests.integration.console.conftest import Browser, World
from tests.support.servers import serving

STATIC = Path("api/console/static")
MODULES = [import_module(f"api.console.pages.{found.name}") for found in pkgutil.iter_modules(pages.__path__)]
ROUTES = [
    (method, f"/console{route.path}")
    for module in MODULES
    for route in module.router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods - {"HEAD"})
]
OPEN = {("GET", "/console/sign-in"), ("POST", "/console/sign-in")}
CLOSED = [route for route in ROUTES if route not in OPEN]
POSTS = [path for method, path in ROUTES if method == "POST"]
OWNED = [route for route in CLOSED if "{" in route[1]]

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
RIGHT_TO_LEFT = "\u05d0\u05d1\u05d2"


def test_every_page_is_among_those_that_are_tried() -> None:
    assert len(MODULES) == 10
    assert len(OWNED) >= 17
    assert len(POSTS) == 11


def ids(routes: list) -> list[str]:
    return [" ".join(route) if isinstance(route, tuple) else route for route in routes]


@pytest.fixture(scope="module")
def things(world: World, alice: Browser) -> dict[str, str]:
    """One thing of alice's for every part of a path."""
    job = world.jobs.queued()
    return {
        "job_id": job,
        "verb": "hold",
        "model_id": "mdl_alice",
        "dataset_id": "ds_none",
        "webhook_id": "whk_none",
        "delivery_id": "whd_none",
        "path": "x",
    }


def fill(path: str, things: dict[str, str]) -> str:
    for name, value in things.items():
        path = path.replace("{" + name + "}", value)
    return path


@pytest.mark.parametrize("route", CLOSED, ids=ids(CLOSED))
def test_strangers_are_sent_to_sign_in(world: World, things: dict[str, str], route: tuple[str, str]) -> None:
    path = fill(route[1], things)
    response = world.browser().http.request(route[0], path, headers={"Origin": world.url})
    assert response.status_code == 303
    assert response.headers["location"].startswith("/console/sign-in")
    forged = world.browser().http.request(route[0], path, headers={"Cookie": "efface_console=efs_forged"})
    assert forged.status_code == 303


@pytest.mark.parametrize("route", OWNED, ids=ids(OWNED))
def test_another_tenants_things_do_not_exist(
    world: World, bob: Browser, things: dict[str, str], route: tuple[str, str]
) -> None:
    method, path = route[0], fill(route[1], things)
    response = (
        bob.get(path) if method == "GET" else bob.post(path, token=bob.token(), reason="mine now", ground="excessive")
    )
    assert response.status_code == 404, response.text
    assert "alice" not in response.text.replace("mdl_alice", "")
    assert world.api().get(f"/jobs/{things['job_id']}").json()["state"] == "queued"


def test_lists_hold_nothing_of_another_tenant(bob: Browser, things: dict[str, str]) -> None:
    for path in ("/", "/erasures.csv", "/new", "/models", "/data-sets", "/records", "/records/log.jsonl", "/service"):
        page = bob.page(f"/console{path}")
        assert things["job_id"] not in page
        assert "mdl_alice" not in page
    assert bob.get(f"/console/new?base={things['job_id']}").status_code == 404
    made = bob.post("/console/new", model="mdl_alice", kind="class", class_name="horse", labels="horse\ncow")
    assert made.status_code == 422


@pytest.mark.parametrize("path", POSTS)
def test_a_form_without_its_token_or_from_another_site_does_nothing(
    world: World, alice: Browser, bob: Browser, things: dict[str, str], path: str
) -> None:
    target, own = fill(path, things), {"Origin": world.url}
    good = {"reason": "x", "ground": "excessive", "key": world.key("alice")[1], "person": "Eve"}
    sent = [
        alice.http.post(target, data=good, headers=own),
        alice.http.post(target, data=good | {"csrf": bob.token()}, headers=own),
        alice.http.post(target, data=good | {"csrf": alice.token()}, headers={"Origin": "https://evil.example"}),
        alice.http.post(target, data=good | {"csrf": alice.token()}, headers={"Origin": "null"}),
        alice.http.post(target, data=good | {"csrf": alice.token()}, headers={"Sec-Fetch-Site": "cross-site"}),
        alice.http.post(target, content=b"x", headers=own | {"Content-Type": "text/plain"}),
        alice.http.post(target, files={"file": ("a.zip", b"x")}, headers=own),
    ]
    assert [response.status_code for response in sent] == [403] * len(sent)
    assert all("set-cookie" not in response.headers for response in sent)
    assert alice.get("/console/").status_code == 200
    assert world.api().get(f"/jobs/{things['job_id']}").json()["hold"] is None


def test_signing_in_gives_a_new_session_whatever_cookie_there_was(world: World) -> None:
    browser = world.browser()
    browser.http.cookies.set("efface_console", "efs_planted")
    token = browser.token("/console/sign-in")
    response = browser.post("/console/sign-in", token=token, key=world.key("alice")[1], person="Ada")
    first = response.cookies["efface_console"]
    again = browser.post("/console/sign-in", key=world.key("alice")[1], person="Ada").cookies["efface_console"]

    assert first != "efs_planted"
    assert again != first
    assert world.browser().get("/console/", Cookie="efface_console=efs_planted").status_code == 303


def test_the_cookie_is_for_the_server_alone(world: World) -> None:
    plain = world.browser()
    signed = plain.post("/console/sign-in", key=world.key("alice")[1], person="Ada")
    session = next(c for c in signed.headers.get_list("set-cookie") if c.startswith("efface_console="))
    for flag in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={world.settings.console_session_seconds}"):
        assert flag in session
    assert "Secure" not in session
    with serving(world.settings.model_copy(update={"public_url": "https://efface.example.com"})) as url:
        secure = httpx.get(f"{url}/console/sign-in").headers["set-cookie"]
    assert secure.startswith("__Host-efface_console_form=")
    assert "Secure" in secure
    assert "HttpOnly" in secure


def test_only_a_hash_of_the_cookie_is_kept(world: World, alice: Browser) -> None:
    cookie = alice.http.cookies["efface_console"]
    with world.database.transaction() as session:
        rows = session.query(ConsoleSession).all()
    assert api_keys.digest(cookie) in {row.hash for row in rows}
    assert all(cookie not in (row.hash, row.id, row.person) for row in rows)


def test_a_session_ends_with_its_time_its_key_and_by_signing_out(world: World) -> None:
    key_id, secret = world.key("alice")
    revoked, out, late = (world.browser().sign_in(secret) for _ in range(3))

    old = out.http.cookies["efface_console"]
    assert out.post("/console/sign-out", form_at="/console/").status_code == 303
    assert "efface_console" not in out.http.cookies
    assert world.browser().get("/console/", Cookie=f"efface_console={old}").status_code == 303
    with world.database.transaction() as session:
        hash_ = api_keys.digest(late.http.cookies["efface_console"])
        session.execute(update(ConsoleSession).where(ConsoleSession.hash == hash_).values(expires_at=func.now()))
    assert late.get("/console/").status_code == 303
    with world.database.transaction() as session:
        api_keys.revoke(session, key_id)
    assert revoked.get("/console/").status_code == 303


def test_signing_out_ends_event_streams(world: World) -> None:
    dora = world.signed_in("alice", person="Dora")
    job = world.jobs.running()
    connect = f"/console/erasures/{job}/events?after=0"
    with dora.http.stream("GET", connect, headers={"Accept": "text/event-stream"}, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        dora.post("/console/sign-out", form_at="/console/")
        for _ in lines:  # it ends: reading comes to its end, not to the end of patience
            pass
    assert world.api().get(f"/jobs/{job}").json()["state"] == "running"


def link(world: World, seconds: int = 60) -> str:
    with world.database.transaction() as session:
        return console_sessions.make_link(session, world.key("alice")[0], seconds)


def test_a_link_signs_in_once_and_is_not_used_up_by_looking(world: World) -> None:
    secret = link(world)
    at = f"/console/sign-in?link={secret}"
    for _ in range(2):  # a mail scanner looks, too
        assert "alice&#39;s" in world.browser().page(at)
    first, second = world.browser(), world.browser()
    tokens = [browser.token(at) for browser in (first, second)]

    used = first.post("/console/sign-in", token=tokens[0], link=secret, person="Ada")
    again = second.post("/console/sign-in", token=tokens[1], link=secret, person="Eve")

    assert (used.status_code, again.status_code) == (303, 401)
    assert "used already" in again.text
    assert "used already" in world.browser().page(at)
    assert first.get("/console/").status_code == 200


def test_a_link_ends_with_its_time_and_its_key(world: World) -> None:
    with world.database.transaction() as session:
        late = console_sessions.make_link(session, world.key("alice")[0], 60)
        key_id = world.key("alice")[0]
        dead = console_sessions.make_link(session, key_id, 60)
        hash_ = api_keys.digest(late)
        session.execute(update(ConsoleLink).where(ConsoleLink.hash == hash_).values(expires_at=func.now()))
        api_keys.revoke(session, key_id)
    for secret in (late, dead):
        browser = world.browser()
        token = browser.token("/console/sign-in")
        assert browser.post("/console/sign-in", token=token, link=secret, person="Eve").status_code == 401


@pytest.mark.parametrize(
    "goal",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/jobs",
        "/console/../docs",
        "/console//evil.example",
        "javascript:alert(1)",
        "/console/\r\nSet-Cookie: a=b",
        "http:/console/",
        "/consolex",
    ],
)
def test_signing_in_leads_to_a_page_of_the_console_alone(world: World, goal: str) -> None:
    browser = world.browser()
    page = browser.page(f"/console/sign-in?next={quote(goal)}")
    assert "evil.example" not in page
    response = browser.post("/console/sign-in", next=goal, key=world.key("alice")[1], person="Ada")
    assert (response.status_code, response.headers["location"]) == (303, "/console/")


def test_one_comes_back_to_where_one_wanted_to_go(world: World) -> None:
    browser = world.browser()
    turned = browser.get("/console/erasures?q=a%20b&sort=due")
    page = browser.page(turned.headers["location"])
    goal = re.search(r'name="next" value="([^"]+)"', page)[1].replace("&amp;", "&")
    response = browser.post("/console/sign-in", next=goal, key=world.key("alice")[1], person="Ada")
    assert response.headers["location"] == "/console/erasures?q=a%20b&sort=due"


def test_a_link_from_elsewhere_comes_again_from_here_with_its_cookie(world: World) -> None:
    arrived = world.browser().get("/console/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert arrived.status_code == 200
    assert 'http-equiv="refresh"' in arrived.text
    again = world.browser().get("/console/", **{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"})
    assert again.status_code == 303


@pytest.mark.parametrize(
    "path",
    ["/", "/sign-in", "/erasures", "/new", "/models", "/data-sets", "/records", "/service", "/nowhere", "/erasures/x"],
)
def test_every_answer_is_guarded_and_holds_nothing_inline(alice: Browser, path: str) -> None:
    response = alice.get(f"/console{path}")
    policy = response.headers["content-security-policy"]
    for rule in (
        "default-src 'none'",
        "script-src 'self';",
        "style-src 'self';",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert rule in policy
    assert "unsafe" not in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "same-origin"
    assert "<style" not in response.text
    assert not re.search(r"<[^>]+\sstyle=", response.text)
    assert not re.search(r"<[^>]+\son[a-z]+=", response.text)
    assert re.findall(r"<script(?![^>]*\ssrc=)", response.text) == []
    assert "http://" not in response.text.replace(alice.url, "").replace("http://localhost", "")


def test_pages_say_what_is_not_there_and_stay_pages(alice: Browser) -> None:
    gone = alice.get("/console/nowhere")
    assert gone.status_code == 404
    assert "<h1>There is no such thing</h1>" in gone.text
    wrong = alice.http.delete("/console/models", headers={"Origin": alice.url})
    assert wrong.status_code == 405
    as_json = alice.http.get("/console/nowhere", headers={"Accept": "application/json"})
    assert as_json.headers["content-type"] == "application/problem+json"


def test_what_tenants_write_is_text_wherever_it_is_shown(world: World, archive: Path) -> None:
    eve = world.signed_in("alice", person=MARKUP[:60])
    api = world.api()
    api.post("/models", json={"name": MARKUP, "model": {"architecture": "ViT-B-32", "pretrained": "openai"}})
    uploaded = api.post("/datasets", content=archive.read_bytes(), params={"name": MARKUP})
    changes = {
        "external_id": MARKUP + RIGHT_TO_LEFT,
        "target": {"type": "class", "class": MARKUP, "labels": [MARKUP, "cow"], "synonyms": [f"s{MARKUP}"]},
        "metadata": {"k<b>": MARKUP},
    }
    job = world.jobs.queued(**changes)
    at = f"/console/erasures/{job}"
    eve.post(f"{at}/decide/hold", reason=MARKUP)
    eve.post(f"{at}/decide/release", reason=MARKUP)
    eve.post(f"{at}/decide/extend", reason=MARKUP)
    failed = world.jobs.missed()
    pages = ["/", "/erasures?q=" + quote(MARKUP), f"/erasures/{job}", f"/erasures/{job}/live", f"/erasures/{failed}"]
    pages += [f"/new?base={job}", "/new?class_name=" + quote(MARKUP), "/models", "/data-sets", "/records"]
    pages += [
        f"/erasures/{job}/decide/refuse",
        "/records?subject=" + quote(MARKUP),
        "/service",
        "/nowhere" + quote(MARKUP),
    ]
    pages += [f"/data-sets/{uploaded.json().get('id', 'x')}", "/sign-in?next=" + quote(MARKUP)]
    pages.append(f"/sign-in?done={quote(MARKUP)}&link={quote(MARKUP)}")
    shown = 0
    for path in pages:
        text = eve.get(f"/console{path}").text
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        shown += text.count("&lt;script&gt;alert")
    assert shown > 20
    checked = eve.post(
        "/console/new/check", form_at="/console/new", class_name=MARKUP, labels=MARKUP, model="mdl_alice"
    )
    assert "<script>alert" not in checked.text
    live = eve.page(at)
    assert "</script>" not in live.split("In Python")[1].split("</details>")[0]


@pytest.mark.parametrize(
    ("scope", "opens", "closed"),
    [
        (Scope.JOBS_READ, ["/"], ["/new", "/models", "/data-sets", "/records", "/service"]),
        (Scope.MODELS_READ, ["/models"], ["/", "/new", "/records"]),
        (Scope.DATASETS_READ, ["/data-sets"], ["/", "/models", "/service"]),
    ],
)
def test_scopes_decide_what_is_shown_and_possible(
    world: World, things: dict[str, str], scope: Scope, opens: list[str], closed: list[str]
) -> None:
    person = world.signed_in("alice", scope)
    for path in opens:
        page = person.page(f"/console{path}")
        assert not any(
            f'href="/console{other}"' in page.split("<main")[0].split("<nav")[1] for other in closed if other != "/"
        )
        assert "/console/new" not in page
        assert 'type="file"' not in page
    for path in closed:
        response = person.get(f"/console{path}")
        assert response.status_code == 403
        assert "scope" in response.text
    if scope is Scope.JOBS_READ:
        at = f"/console/erasures/{things['job_id']}"
        assert "/decide/" not in person.page(at)
        assert person.post(f"{at}/decide/cancel", token=person.token()).status_code == 403


def test_a_person_needs_a_name_and_a_key(world: World) -> None:
    secret = world.key("alice")[1]
    for person, key, status in (
        ("", secret, 422),
        ("x" * 61, secret, 422),
        ("Ada", "efk_wrong", 401),
        ("Ada", "", 401),
    ):
        browser = world.browser()
        response = browser.post("/console/sign-in", key=key, person=person)
        assert response.status_code == status
        assert "efface_console=" not in response.headers.get("set-cookie", "")
        assert secret not in response.text


def test_the_rate_limit_of_the_tenant_holds_here_too(world: World) -> None:
    with serving(world.settings.model_copy(update={"rate_limit_requests": 8})) as url:
        zoe = Browser(url).sign_in(world.key("zoe")[1])
        answers = [zoe.get("/console/") for _ in range(12)]
        zoe.http.close()
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert "<h1>" in answers[-1].text
    assert int(answers[-1].headers["ratelimit"].split("t=")[1].split(",")[0]) > 0


def test_the_first_page_of_a_browser_is_the_console_and_no_programs(world: World) -> None:
    assert httpx.get(f"{world.url}/", headers={"Accept": "text/html"}).headers["location"] == "/console/"
    assert httpx.get(f"{world.url}/").status_code == 401
    assert httpx.get(f"{world.url}/console", follow_redirects=False).headers["location"] == "/console/"
    assert httpx.get(f"{world.url}/consolation").status_code == 401


def test_a_session_opens_nothing_of_the_api(alice: Browser) -> None:
    assert alice.get("/jobs").status_code == 401
    assert alice.get("/console/", Authorization=f"Bearer {'x'}").status_code == 200


def test_sign_in_and_out_are_in_the_audit_log(world: World) -> None:
    fay = world.signed_in("fay", person="Fay")
    fay.post("/console/sign-out", form_at="/console/")
    log = world.signed_in("fay", person="Gus").page("/console/records")
    assert log.count("console.signed_in") == 2
    assert log.count("console.signed_out") == 1
    assert ">Fay<" in log


def test_vendored_files_are_those_that_were_released() -> None:
    listed = dict(
        reversed(line.split()) for line in (STATIC / "README.md").read_text().splitlines() if line[64:66] == "  "
    )
    assert listed.keys() == {"htmx.min.js", "htmx-sse.min.js"}
    for name, digest in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


def test_files_are_kept_by_browsers_and_pages_are_not(world: World, alice: Browser) -> None:
    page = alice.page("/console/")
    names = re.findall(r'"(/console/static/[^"]+)"', page)
    assert len(names) == 5
    for name in names:
        found = world.browser().get(name)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert "default-src 'none'" in found.headers["content-security-policy"]


def test_a_form_has_bounds(world: World, alice: Browser) -> None:
    many = "&".join(f"f{n}=1" for n in range(300))
    headers = {"Origin": world.url, "Content-Type": "application/x-www-form-urlencoded"}
    token = alice.token()
    for content, status in (
        (f"csrf={token}&{many}".encode(), 422),
        (b"a=" + b"x" * (world.settings.max_body_bytes + 1), 413),
        (b"\xff=1", 422),
        (f"csrf={token}&reason=%ff".encode(), 422),
        (f"csrf={token}&key=%00&person=%00".encode(), 422),
    ):
        response = alice.http.post("/console/sign-in", content=content, headers=headers)
        assert response.status_code == status, content[:50]

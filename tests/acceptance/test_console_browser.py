"""The console in a real browser on a real service: an erasure from sign-in to a verified certificate, with the mouse alone.

Needs Chromium (Debian's package; `EFFACE_CHROMIUM` names another one) and Playwright. `EFFACE_SCREENSHOTS=docs/console`
keeps pictures of the pages at three widths.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.cli.local_files import upload_model
from api.client import Client
from api.demo.drawings import cells, write_archive
from api.demo.scenario import MODEL
from api.processes import Ending
from api.stack import Stack, running
from services.certificates.verification import Exhibits, Outcome, verify
from shared.crypto.public_keys import read_public_keys

CHROMIUM = os.environ.get("EFFACE_CHROMIUM", shutil.which("chromium") or "/usr/bin/chromium")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="NOT TESTED: the console, for Playwright is not installed"
)
if not Path(CHROMIUM).exists():
    pytest.skip(f"NOT TESTED: the console, for there is no browser at {CHROMIUM}", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)

AXE = (Path(__file__).parents[1] / "support" / "browser" / "axe.min.js").read_text()
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
SHOTS = os.environ.get("EFFACE_SCREENSHOTS")
WIDTHS = (375, 768, 1440)
DARK = ("erasure", "on-hold")
PATIENCE = 240_000
"""Milliseconds: the machine may be busy, and an erasure takes its time."""
LISTED = {"/": "erasures", "/models": "models", "/data-sets": "data-sets", "/records": "records", "/service": "service"}
PAGES = (
    "/",
    "/new",
    "/models",
    "/data-sets",
    "/records",
    "/records/deliveries",
    "/records/processing",
    "/service",
    "/nowhere",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("console") / "home", 0, Ending()) as stack:
        yield stack


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What the browser complained of on any page, breaches of the content policy among it."""
    return []


@pytest.fixture(scope="module")
def page(browser, stack: Stack, complaints: list[str]) -> Iterator["playwright.Page"]:
    """A browser in which somebody is signed in by a link."""
    context = browser.new_context(base_url=stack.url, viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(stack.sign_in_link())
    picture(page, "sign-in")
    assert violations(page) == []
    page.get_by_label("Your name").fill("Ada Lovelace")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/")
    yield page
    context.close()


def violations(page) -> list[str]:
    """Return what axe finds wrong with a page. Evaluated by the debugger, it needs no gap in the content policy."""
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, rules)", RULES)["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


def picture(page, name: str) -> None:
    """Keep pictures of a page at three widths, light, and dark at the widest."""
    assert_no_sideways_scrolling(page, name)
    if not SHOTS:
        return
    size = page.viewport_size
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=f"{SHOTS}/{name}-{width}.png", full_page=True)
    if name in DARK:
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=f"{SHOTS}/{name}-dark.png", full_page=True)
        page.emulate_media(color_scheme="light")
    page.set_viewport_size(size)


def assert_no_sideways_scrolling(page, name: str) -> None:
    size = page.viewport_size
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} px wide at {width} px"
    page.set_viewport_size(size)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of every object as the demo draws them, a few each."""
    path = tmp_path_factory.mktemp("drawings") / "objects.zip"
    write_archive(path, cells(), 6, 99)
    return path


@pytest.fixture(scope="module")
def erased(page, stack: Stack, drawings: Path) -> str:
    """The id of an erasure that was started by the form and has ended on the page."""
    with Client(stack.url, stack.key) as client:
        upload_model(client, MODEL, name="demo")
    page.get_by_role("link", name="New erasure").click()
    page.get_by_label("Archive of images").set_input_files(drawings)
    page.get_by_role("button", name="Upload").click()
    box = page.get_by_role("checkbox", name="objects.zip")
    box.wait_for()
    assert box.is_checked()
    page.get_by_label("Class", exact=True).fill("umbrella")
    page.get_by_text("Other methods").click()
    page.get_by_role("radio", name="From the name, one step").check()
    page.get_by_label("Your reference").fill("DSR-2026-0042")
    page.get_by_label("Received on").fill("2026-11-02")
    page.get_by_text("This is ready to start").wait_for()
    assert violations(page) == []
    picture(page, "new")
    page.get_by_role("button", name="Start the erasure").click()
    page.get_by_role("heading", name="Forgetting “umbrella”").wait_for()
    assert violations(page) == []
    page.locator("#live .state.passed, #live .state.failed").wait_for()  # without loading the page again
    return page.url.split("/erasures/")[1].partition("?")[0]


def test_an_erasure_runs_from_the_form_to_a_certificate_that_verifies(
    page, stack: Stack, erased: str, tmp_path: Path
) -> None:
    assert "The model has forgotten “umbrella”" in page.locator("#live").inner_text()
    page.get_by_role("link", name="Certificate", exact=True).wait_for()

    def saved(name: str) -> Path:
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    certificate, report, weights = saved("Certificate"), saved("as JSON"), saved("Weights")
    with Client(stack.url, stack.key) as client:
        keys = read_public_keys(client.public_keys())
    finding = verify(certificate.read_bytes(), keys, Exhibits(weights=weights, report=report))
    assert finding.outcome is Outcome.VALID, finding.reason
    assert weights.name == "open_clip_model.safetensors"


def test_the_page_of_an_erasure_tells_what_was_measured_and_by_whom(page, stack: Stack, erased: str) -> None:
    page.goto(f"{stack.url}/console/erasures/{erased}")
    table = page.get_by_role("table").first.inner_text()
    assert "Still recognised, of what is to be forgotten" in table
    assert "met" in table
    page.get_by_text("With curl").click()
    assert "umbrella" in page.get_by_label("The request with curl").inner_text()
    assert violations(page) == []
    page.get_by_text("With curl").click()
    picture(page, "erasure")
    page.goto(f"{stack.url}/console/records?subject={erased}")
    assert "Ada Lovelace" in page.get_by_role("row", name="job.submitted").inner_text()


def test_the_report_opens_in_the_signed_in_browser(page, stack: Stack, erased: str) -> None:
    page.goto(f"{stack.url}/console/erasures/{erased}")
    page.get_by_role("link", name="Report", exact=True).click()
    page.get_by_role("heading", name="Forgetting “umbrella”").wait_for()
    assert "What was required" in page.content()


def test_an_erasure_is_held_released_and_refused_with_the_mouse(page, stack: Stack, erased: str) -> None:
    def press(name: str) -> None:
        page.get_by_role("link", name=name, exact=True).click()

    with Client(stack.url, stack.key) as client:
        request = client.job(erased).request
        assert request is not None
        body = request.model_dump(mode="json", exclude_unset=True) | {"external_id": "DSR-2026-0043"}
        body["data"], body["thresholds"] = {}, {}  # the API shows every limit, and null switches one off
        body["method"] = {"name": "synthetic"}
    headers = {"Authorization": f"Bearer {stack.key}"}
    held = httpx.post(f"{stack.url}/jobs", params={"hold": "who asks?"}, json=body, headers=headers, timeout=60).json()
    page.goto(f"{stack.url}/console/erasures/{held['id']}")
    page.get_by_text("On hold", exact=True).wait_for()
    assert "synthetic samples: at most 5.0 %" in page.locator("#live").inner_text(), held
    picture(page, "on-hold")
    press("Extend the period")
    assert violations(page) == []
    page.get_by_label("Why it takes longer").fill("The class spans four models.")
    page.get_by_role("button", name="Extend the period").click()
    page.get_by_text("extended by two further months").first.wait_for()
    press("Refuse")
    picture(page, "refuse")
    assert violations(page) == []
    page.get_by_label("Legal claims").check()
    page.get_by_role("button", name="Refuse").click()
    page.get_by_text("Refused: Legal claims").wait_for()


def test_every_page_is_without_violations_and_fits(page, stack: Stack, erased: str) -> None:
    with Client(stack.url, stack.key) as client:
        model = client.job(erased).result_model
        dataset = next(client.datasets()).id
    more = (f"/models/{model}", f"/models/{model}/delete", f"/data-sets/{dataset}")
    found = {}
    for path in (*PAGES, *more):
        page.goto(f"{stack.url}/console{path}")
        found[path] = violations(page)
        if path in LISTED:
            picture(page, LISTED[path])
        else:
            assert_no_sideways_scrolling(page, path)
    page.emulate_media(color_scheme="dark")
    for path in ("/", f"/erasures/{erased}", "/new"):
        page.goto(f"{stack.url}/console{path}")
        found[f"{path} in the dark"] = violations(page)
    page.emulate_media(color_scheme="light")
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_pages_can_be_read_without_a_script(browser, page, stack: Stack, erased: str) -> None:
    state = page.context.storage_state()
    with browser.new_context(base_url=stack.url, java_script_enabled=False, storage_state=state) as context:
        plain = context.new_page()
        plain.goto("/console/")
        plain.get_by_role("link", name="“umbrella”").first.click()
        assert "Forgetting" in plain.get_by_role("heading", level=1).inner_text()


def test_signing_out_shuts_every_page(page, stack: Stack, complaints: list[str]) -> None:
    page.goto(f"{stack.url}/console/")
    assert [text for text in complaints if "404" not in text] == []
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You have signed out.").wait_for()
    page.goto(f"{stack.url}/console/models")
    assert "/console/sign-in" in page.url
    page.go_back()
    page.reload()
    assert page.get_by_label("API key").is_visible()

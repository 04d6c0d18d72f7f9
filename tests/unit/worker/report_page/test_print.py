"""On paper: what a lawyer needs fits three pages of A4, the annex begins on a page of its own, and every page says whose it is."""

import re
import shutil
import subprocess

import pytest

from shared.schemas.report import Report
from tests.support.reports import change, evaluation, report, taken
from worker.report_page.page import render

SHA256 = "5e" * 32
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NEEDED = [tool for tool, path in {"chromium": BROWSER, "pdftotext": shutil.which("pdftotext")}.items() if path is None]
pytestmark = [
    pytest.mark.skipif(
        bool(NEEDED), reason=f"NOT CHECKED how the report prints: {', '.join(NEEDED)} is missing (apt-get)"
    ),
    pytest.mark.timeout(300),
]
LAWYERS_PAGES = 3


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The text of each printed page of a long report."""
    folder = tmp_path_factory.mktemp("print")
    (folder / "report.html").write_text(render(long_report(), SHA256), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += [
        f"--user-data-dir={folder}/profile",
        f"--print-to-pdf={folder}/report.pdf",
        f"file://{folder}/report.html",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    text = subprocess.run(
        ["pdftotext", "-layout", str(folder / "report.pdf"), "-"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return text.rstrip("\f").split("\f")


def long_report() -> Report:
    """A report with much to say: missed thresholds, other sets, limits, synonyms, every attack."""
    labels = ["umbrella", *(f"class number {number}" for number in range(60))]
    missed = [
        {"measure": name, "limit": 0.05, "value": 0.2, "passed": False, "where": "objects"}
        for name in (
            "max_forget_accuracy",
            "max_retain_drop",
            "max_transfer_drop",
            "probe_recall",
            "worst_prompt_recall",
        )
    ]
    measures = [
        taken(name, 0.9) for name in ("probe_recall", "original_text_recall", "original_image_recall", "forget_recall")
    ]
    sets = [evaluation("objects", labels, forget="umbrella"), *(evaluation(f"set {n}", labels[1:9]) for n in range(3))]
    limits = [
        f"This is limit number {number}, in a sentence of about the length that such sentences have."
        for number in range(12)
    ]
    return report(
        labels,
        verdict="failed",
        thresholds=missed,
        measures=measures,
        evaluations=sets,
        limits=limits,
        target={"accuracy": change(0.9, 0.2), "synthetic_accuracy": None, "siblings": None},
    )


def test_what_a_lawyer_needs_fits_three_pages(pages: list[str]) -> None:
    (annex,) = [number for number, page in enumerate(pages) if "Before and after, class by class" in page]
    assert annex <= LAWYERS_PAGES
    first = "\n".join(pages[:annex])
    for heading in (
        "What was asked",
        "What was required",
        "What you can do",
        "What was done",
        "does not show",
        "How to check",
    ):
        assert heading in first
    assert pages[annex].split("\n")[0].strip() == "Before and after, class by class"


def test_every_page_has_its_number_and_the_job(pages: list[str]) -> None:
    for number, page in enumerate(pages, 1):
        assert "Erasure report, job job_1" in page
        assert f"Page {number} of {len(pages)}" in page


def test_a_table_that_goes_on_has_its_head_again(pages: list[str]) -> None:
    goes_on = [page for page in pages if page.count("class number") > 6 and page.count("85.0 to 95.0") > 6]
    assert len(goes_on) > 1
    assert all(re.search(r"Class +n +Before +After", page) for page in goes_on)


def test_no_heading_stands_at_the_foot_of_a_page(pages: list[str]) -> None:
    headings = {
        "What was required",
        "What was done",
        "Harder questions",
        "Glossary",
        "For engineers",
        "Versions and machine",
    }
    for page in pages:
        lines = [line.strip() for line in page.split("\n") if line.strip() and "Erasure report, job" not in line]
        assert lines[-1] not in headings

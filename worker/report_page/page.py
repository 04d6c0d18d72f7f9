"""Report in, HTML out. Nothing else is read and nothing is written."""

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.schemas.report import Report
from worker.report_page import figures, sections, words

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "page.css").read_text(encoding="utf-8").strip()
POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
)
"""What a browser may do with the page: show it. Its one style sheet is known by its digest, and
there is no script.
"""


def render(report: Report, sha256: str) -> str:
    """Return a report as one self-contained HTML page; `sha256` is the digest of the `report.json`
    that it shows.

    Names and labels come from requests: the template escapes them, and charts hold them as data
    alone."""
    course, numbers = sections.step_curves(report)
    sets = sections.set_sections(report)
    style = STYLE + _footer(report)
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            sha256=sha256,
            style=Markup(style),  # noqa: S704 - our own file, and an id without anything but letters and digits
            policy=POLICY.format(
                base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
            ),
            name=words.target_name(report),
            verdict=words.verdict(report),
            summary=words.summary(report.target, words.target_name(report)),
            evidence=words.EVIDENCE[report.evidence],
            sets=sets,
            undrawn=sum(not part.drawings for part in sets),
            course=course,
            numbers=numbers,
            groups=sections.group_sections(report),
            sheet=sections.contact_sheet(report),
            uncounted=sections.uncounted(report),
            notes=sections.notes(report),
        )
    )


def _footer(report: Report) -> str:
    """Return the rule that names the job at the foot of each printed page."""
    job = re.sub(r"[^A-Za-z0-9_-]", "", report.job_id)[:64]
    return f'\n@page {{ @bottom-left {{ content: "Erasure report, job {job}"; }} }}'


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        name: getattr(figures, name)
        for name in ("percent", "points", "number", "value_interval", "size", "duration")
    }
    environment.globals |= {"interval": figures.interval, "words": words}
    return environment

"""The list of erasures: what is due, what was done; narrowed, sorted, a page at a time, and as
CSV.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import get_args

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from api.console import words
from api.console.page import Page
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, JobReader
from services.catalog import names
from services.jobs import queries
from services.jobs.queries import JobFilter
from shared.errors import FieldError, InvalidRequest
from shared.schemas.job import JobView
from shared.schemas.request import MethodName
from shared.states import JobState

router = APIRouter(route_class=Page)

PAGE = 50
CSV_PAGE = 100
OPEN, ENDED = "open", "ended"
STATES = {OPEN: "Open", ENDED: "Ended"} | {state.value: words.STATES[state] for state in JobState}
METHODS = get_args(MethodName)
VERDICTS = {"passed": "All limits met", "failed": "A limit missed"}
NAMES = ("state", "method", "model", "verdict", "q", "due_before", "sort")
MAX_TEXT = 200
_DAY = TypeAdapter[datetime](datetime)


@router.get("/")
@router.get("/erasures")
def erasures(request: Request, begin: BeginDep, caller: JobReader) -> Response:
    """Show the list. With `HX-Request` htmx takes the rows alone out of it."""
    given = _given(request)
    wanted, after = _filter(given), request.query_params.get("after") or None
    with begin() as session:
        page = queries.list_page(session, caller.tenant_id, wanted, after=after, limit=PAGE)
        models = _models(session, caller.tenant_id, page.data)
        known = names.newest_models(session, caller.tenant_id)
    return render(
        request,
        "erasures.html",
        jobs=page.data,
        has_more=page.has_more,
        models=models,
        known_models=known,
        given={name: given.get(name, "") for name in NAMES},
        narrowed=bool(given),
        after=after,
        moving=any(not job.state.final for job in page.data),
        states=STATES,
        methods=METHODS,
        verdicts=VERDICTS,
        done=request.query_params.get("done", ""),
    )


@router.get("/erasures.csv")
def as_csv(request: Request, begin: BeginDep, caller: JobReader) -> Response:
    """Return the list as CSV, all of it, page by page."""
    wanted = _filter(_given(request))
    name = f"erasures-{datetime.now(UTC):%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    rows = _rows(begin, caller.tenant_id, wanted)
    return StreamingResponse(rows, headers=headers, media_type="text/csv; charset=utf-8")


def _rows(begin: Begin, tenant_id: str, wanted: JobFilter) -> Iterator[str]:
    yield _line(COLUMNS)
    after: str | None = None
    while True:
        with begin() as session:
            page = queries.list_page(session, tenant_id, wanted, after=after, limit=CSV_PAGE)
        for job in page.data:
            yield _line(_cells(job).values())
        if not page.has_more:
            return
        after = page.data[-1].id


COLUMNS = (
    "id",
    "external_id",
    "target",
    "model",
    "method",
    "state",
    "verdict",
    "received_at",
    "due_at",
    "finished_at",
    "on_hold_since",
    "extended_at",
    "refused_on_ground",
    "result_model",
    "error",
)


def _cells(job: JobView) -> Mapping[str, object]:
    request = job.request
    values = (
        job.id,
        job.external_id,
        words.target(request),
        request and (request.model.id or request.model.source or request.model.architecture),
        request and request.method.name,
        job.state,
        job.verdict,
        job.received_at,
        job.due_at,
        job.finished_at,
        job.hold and job.hold.since,
        job.extension and job.extension.extended_at,
        job.refusal and job.refusal.ground,
        job.result_model,
        job.error and job.error.code,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_cell(value) for value in values])
    return text.getvalue()


def _cell(value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula: a tenant decides how its references
    begin.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _given(request: Request) -> dict[str, str]:
    """Return what the address narrows the list to; a field of the form that was left empty says
    nothing.
    """
    return {name: value for name in NAMES if (value := request.query_params.get(name, "").strip())}


def _filter(given: Mapping[str, str]) -> JobFilter:
    """Return what the list is narrowed to.

    Raises:
        InvalidRequest: naming each wrong part of the address.
    """
    allowed = {"state": STATES, "method": METHODS, "verdict": VERDICTS, "sort": ("due", "newest")}
    wrong = [
        FieldError("", f"{name} is one of {', '.join(allowed[name])}", name)
        for name, value in given.items()
        if name in allowed and value not in allowed[name]
    ]
    due = _end_of(given["due_before"]) if "due_before" in given else None
    if "due_before" in given and due is None:
        wrong.append(FieldError("", "due_before is a day, as in 2026-11-02", "due_before"))
    text = given.get("q")
    for name in ("q", "model"):
        if len(given.get(name, "")) > MAX_TEXT or not given.get(name, "").isprintable():
            wrong.append(FieldError("", f"{name} is one line of up to {MAX_TEXT} characters", name))
    if wrong:
        raise InvalidRequest(wrong)
    state = given.get("state")
    return JobFilter(
        state=JobState(state) if state in set(JobState) else None,
        unfinished={OPEN: True, ENDED: False}.get(state or ""),
        method=given.get("method"),
        model_id=given.get("model"),
        verdict=given.get("verdict"),
        due_before=due,
        text=text,
        by_due=given.get("sort") == "due",
    )


def _end_of(day: str) -> datetime | None:
    """Return the end of a day, None where it is none: what is due on that day is due before its
    end.
    """
    try:
        found = _DAY.validate_python(day)
        return datetime.combine(found.date(), time(), UTC) + timedelta(days=1)
    except (ValidationError, OverflowError):
        return None


def _models(session: Session, tenant_id: str, found: Sequence[JobView]) -> dict[str, str]:
    ids = {job.request.model.id for job in found if job.request and job.request.model.id}
    return names.of_models(session, tenant_id, ids)

"""Records: the audit log with its chain, calls to webhooks, the record of processing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from api.console import PREFIX
from api.console.page import Page, go
from api.console.rendering import render
from api.dependencies import Admin, Begin, BeginDep, PartsDep
from services import processing_record
from services.audit_log import chain, reading, signed_heads
from services.webhooks import deliveries
from services.webhooks import endpoints as webhooks
from shared.errors import FieldError, InvalidRequest
from shared.schemas.processing import ProcessingRecord

router = APIRouter(prefix="/records", route_class=Page)

PAGE = 50
EXPORTED = 500
"""Entries that an export reads at a time."""
LARGEST_ID = 2**63 - 1


@router.get("")
def log(request: Request, begin: BeginDep, caller: Admin) -> Response:
    """Show the audit log, newest first; with `subject` what happened to one thing."""
    before, subject = _before(request), request.query_params.get("subject", "").strip() or None
    with begin() as session:
        page = reading.list_page(
            session, caller.tenant_id, subject=subject, before=before, limit=PAGE
        )
        head = signed_heads.newest(session)
    return render(
        request,
        "records.html",
        entries=page.data,
        has_more=page.has_more,
        before=before,
        subject=subject,
        head=head,
        checked=None,
    )


@router.post("/check")
def check(request: Request, begin: BeginDep, caller: Admin) -> Response:
    """Read the whole log, compute every hash again, and say what was found."""
    with begin() as session:
        checked = chain.verify(session)
        page = reading.list_page(session, caller.tenant_id, limit=PAGE)
        head = signed_heads.newest(session)
        same = head is None or chain.hash_at(session, head.statement.seq) == head.statement.hash
    return render(
        request,
        "records.html",
        entries=page.data,
        has_more=page.has_more,
        before=None,
        subject=None,
        head=head,
        checked=checked,
        head_fits=same,
    )


@router.get("/log.jsonl")
def export(begin: BeginDep, caller: Admin) -> Response:
    """Return the tenant's part of the log, an entry a line, each with the hashes before and
    after it; the signed head first.
    """
    name = f"audit-log-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    lines = _lines(begin, caller.tenant_id)
    return StreamingResponse(lines, headers=headers, media_type="application/jsonl")


def _lines(begin: Begin, tenant_id: str) -> Iterator[str]:
    with begin() as session:
        head = signed_heads.newest(session)
    yield json.dumps({"head": head.model_dump(mode="json") if head else None}) + "\n"
    before: int | None = None
    while True:
        with begin() as session:
            page = reading.list_page(session, tenant_id, before=before, limit=EXPORTED)
        yield from (json.dumps(entry.document(), ensure_ascii=False) + "\n" for entry in page.data)
        if not page.has_more:
            return
        before = page.data[-1].id


@router.get("/deliveries")
def calls(request: Request, begin: BeginDep, caller: Admin) -> Response:
    """Show the webhooks, and what was and is to be delivered to each."""
    with begin() as session:
        endpoints = webhooks.list_page(session, caller.tenant_id, limit=100).data
        listed = {
            one.id: deliveries.list_page(session, caller.tenant_id, one.id, limit=20).data
            for one in endpoints
        }
    return render(request, "deliveries.html", endpoints=endpoints, deliveries=listed)


@router.post("/deliveries/{webhook_id}/{delivery_id}")
def replay(webhook_id: str, delivery_id: str, begin: BeginDep, caller: Admin) -> Response:
    """Make a call once more."""
    with begin() as session:
        deliveries.replay(session, caller.tenant_id, webhook_id, delivery_id)
    return go(f"{PREFIX}/records/deliveries")


@router.get("/processing")
def processing(request: Request, begin: BeginDep, parts: PartsDep, caller: Admin) -> Response:
    """Show the record of processing, as far as it is about this tenant."""
    with begin() as session:
        record = _own(processing_record.record(session, parts.settings), caller.tenant_id)
    return render(request, "processing.html", record=record)


@router.get("/processing.json")
def processing_file(begin: BeginDep, parts: PartsDep, caller: Admin) -> Response:
    """Return the same as JSON."""
    with begin() as session:
        record = _own(processing_record.record(session, parts.settings), caller.tenant_id)
    headers = {"Content-Disposition": 'attachment; filename="record-of-processing.json"'}
    return Response(
        record.model_dump_json(indent=1), headers=headers, media_type="application/json"
    )


def _own(record: ProcessingRecord, tenant_id: str) -> ProcessingRecord:
    """Leave out whom else the service works for."""
    own = tuple(one for one in record.controllers if one.tenant == tenant_id)
    return record.model_copy(update={"controllers": own})


def _before(request: Request) -> int | None:
    given = request.query_params.get("before", "")
    if not given:
        return None
    if not given.isdecimal() or not given.isascii() or int(given) > LARGEST_ID:
        raise InvalidRequest([FieldError("", "before is the number of an entry", "before")])
    return int(given)

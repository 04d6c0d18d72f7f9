"""Starting an erasure: a form that is checked as the API checks a request, and ends on the
erasure's page.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.console import PREFIX, advice, drafting, words
from api.console.drafting import Body
from api.console.page import Form, FormDep, Page, go
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, JobWriter, PartsDep
from api.parts import Parts
from services.access import idempotency
from services.access.api_keys import Principal
from services.access.idempotency import Answer
from services.catalog import datasets, models
from services.jobs import queries, submission, validation
from shared.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    StillInFlight,
)
from shared.schemas.dataset import DatasetView
from shared.schemas.job import JobDraft, JobView
from shared.schemas.model import ModelView
from shared.schemas.request import ErasureRequest
from shared.schemas.validation_errors import invalid_request

router = APIRouter(prefix="/new", route_class=Page)

OFFERED = 100
"""Models and data sets that the form offers, the newest first."""
OFFERED_CLASSES = 500
COMMON_METHODS = ("auto", "synthetic", "three_stage")
OTHER_METHODS = tuple(name for name in words.METHODS if name not in COMMON_METHODS)
SENT_ALREADY = (
    "This form was sent already with other values. Look at the erasures before you "
    "send it once more."
)


@dataclass(frozen=True, slots=True)
class Offered:
    """What a tenant has to choose from."""

    models: list[ModelView]
    datasets: list[DatasetView]
    base: Body | None = None

    @property
    def by_id(self) -> dict[str, DatasetView]:
        """The data sets by id."""
        return {one.id: one for one in self.datasets}

    @property
    def classes(self) -> list[str]:
        """Names to suggest: the classes of the data sets."""
        found = dict.fromkeys(name for one in self.datasets for name in one.classes)
        return list(found)[:OFFERED_CLASSES]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking a form."""

    errors: dict[str, list[str]] = field(default_factory=dict)
    draft: JobDraft | JobView | None = None
    body: Body = field(default_factory=dict)


@router.get("")
def new(request: Request, begin: BeginDep, caller: JobWriter, base: str = "") -> Response:
    """Show the form: empty, or with the request of an earlier erasure (`base`) and what the
    address changes of it.
    """
    offered = _offered(begin, caller, base)
    fields = drafting.filled(offered.base or {})
    changes = {name: value for name in drafting.FIELDS if (value := request.query_params.get(name))}
    fields |= changes
    if not fields["model"] and not offered.base and offered.models:
        fields["model"] = offered.models[0].id
    fields["evaluation"] = [*fields["evaluation"], *request.query_params.getlist("evaluation")]
    return _form(request, offered, fields, base)


@router.post("/check")
def check(
    request: Request, begin: BeginDep, parts: PartsDep, caller: JobWriter, form: FormDep
) -> Response:
    """Return what would come of the form as it is, for htmx."""
    offered = _offered(begin, caller, form.get("base") or "")
    checked = _checked(begin, parts, caller, form, offered)
    return render(request, "new_check.html", **_told(checked, request, parts))


@router.post("")
def submit(
    request: Request, begin: BeginDep, parts: PartsDep, caller: JobWriter, form: FormDep
) -> Response:
    """Check the form, or put the erasure into the queue; the same form sent twice makes one
    erasure.
    """
    base = form.get("base") or ""
    offered = _offered(begin, caller, base)
    if form.get("action") == "check":
        checked = _checked(begin, parts, caller, form, offered)
        return _form(request, offered, drafting.typed(form), base, checked, parts)
    try:
        _, wanted = _request(form, offered)
        answer = _submitted(
            begin, parts, caller, wanted, form.get("once") or secrets.token_urlsafe(16)
        )
    except InvalidRequest as error:
        checked = Checked(drafting.by_field(error.errors))
        return _form(request, offered, drafting.typed(form), base, checked, parts, status=422)
    except (QuotaExceeded, StillInFlight, IdempotencyKeyReused) as error:
        detail = SENT_ALREADY if isinstance(error, IdempotencyKeyReused) else error.detail
        return _form(
            request, offered, drafting.typed(form), base, Checked({"": [detail]}), parts, status=409
        )
    job = json.loads(answer.body)
    return go(
        f"{PREFIX}/erasures/{job['id']}?done={'existing' if job['existing'] else 'submitted'}"
    )


def _submitted(
    begin: Begin, parts: Parts, caller: Principal, wanted: ErasureRequest, once: str
) -> Answer:
    local = validation.read_local(wanted, parts.settings)
    payload = wanted.model_dump(mode="json", exclude_unset=True)
    call = idempotency.call(
        caller.tenant_id, f"console:{once}", method="POST", path=f"{PREFIX}/new", payload=payload
    )
    with begin() as session:

        def made() -> Answer:
            job = submission.submit(session, caller.tenant_id, wanted, parts.settings, local)
            return Answer(202, json.dumps({"id": job.id, "existing": job.existing}), {})

        return idempotency.once(session, call, made, parts.settings.idempotency_seconds)


def _checked(
    begin: Begin, parts: Parts, caller: Principal, form: Form, offered: Offered
) -> Checked:
    try:
        body, wanted = _request(form, offered)
        local = validation.read_local(wanted, parts.settings)
        with begin() as session:
            draft = submission.validated(session, caller.tenant_id, wanted, parts.settings, local)
    except InvalidRequest as error:
        return Checked(drafting.by_field(error.errors))
    return Checked(draft=draft, body=body)


def _request(form: Form, offered: Offered) -> tuple[Body, ErasureRequest]:
    """Return the request that a form asks for.

    Raises:
        InvalidRequest: with every field that is wrong.
    """
    if wrong := drafting.wrong_numbers(form):
        raise InvalidRequest(wrong)
    if not form.get("model") and not (offered.base or {}).get("model"):
        raise InvalidRequest.at("/model", "Choose the model that is to forget.")
    body = drafting.drafted(form, offered.base, offered.by_id)
    try:
        return body, ErasureRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error


def _offered(begin: Begin, caller: Principal, base: str) -> Offered:
    with begin() as session:
        found = models.list_page(session, caller.tenant_id, limit=OFFERED).data
        sets = datasets.list_page(session, caller.tenant_id, limit=OFFERED).data
        return Offered(list(found), list(sets), _base(session, caller.tenant_id, base))


def _base(session: Session, tenant_id: str, base: str) -> Body | None:
    if not base:
        return None
    request = queries.get(session, tenant_id, base).request
    if request is None:
        raise NotFound("request", base, listed="the page of the erasure")
    return request.model_dump(mode="json", exclude_unset=True)


def _form(
    request: Request,
    offered: Offered,
    fields: Mapping[str, Any],
    base: str,
    checked: Checked | None = None,
    parts: Parts | None = None,
    status: int = 200,
) -> Response:
    told = _told(checked, request, parts) if checked and parts else {"checked": None, "errors": {}}
    return render(
        request,
        "new.html",
        status=status,
        fields=fields,
        base=base,
        models=offered.models,
        datasets=offered.datasets,
        classes=offered.classes,
        common=COMMON_METHODS,
        others=OTHER_METHODS,
        needs=drafting.NEEDS,
        once=secrets.token_urlsafe(16),
        **told,
    )


def _told(checked: Checked, request: Request, parts: Parts) -> dict[str, Any]:
    draft = checked.draft
    return {
        "checked": checked,
        "errors": checked.errors,
        "draft": draft if isinstance(draft, JobDraft) else None,
        "existing": draft if isinstance(draft, JobView) else None,
        "decides": _decides(draft) if isinstance(draft, JobDraft) else [],
        "as_json": json.dumps(checked.body, indent=2, ensure_ascii=False),
        "base_url": (parts.settings.public_url or str(request.base_url)).rstrip("/"),
    }


def _decides(draft: JobDraft) -> list[tuple[str, int, float]]:
    """Return for each set that shows what is to be forgotten its number of such images, and how
    low its interval can reach.
    """
    names = set(draft.request.target.names())
    found = []
    for one in draft.sets:
        count = sum(number for name, number in one.classes.items() if name in names)
        if one.role == "target" and count:
            found.append((one.name, count, advice.upper_end(0, count)))
    return found

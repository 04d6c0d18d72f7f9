"""What a person decides about an erasure. Each decision has a page that says what follows from
it, before it is made.
"""

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError

from api.console import PREFIX, words
from api.console.page import Form, FormDep, Page, go
from api.console.pages.erasure import possible
from api.console.rendering import render
from api.dependencies import Begin, BeginDep, JobWriter, PartsDep
from services.jobs import controller_decisions, ending, queries
from shared.errors import Conflict, NotFound
from shared.schemas.deadline import Reason, RefusalRequest
from shared.settings import Settings

router = APIRouter(prefix="/erasures/{job_id}/decide", route_class=Page)

_REASON = TypeAdapter[str](Reason)
NO_REASON = "Give a reason of up to 500 characters. It should name nobody."
NO_GROUND = "Choose the ground on which the erasure is refused."


@router.get("/{verb}")
def decide(
    job_id: str, verb: str, request: Request, begin: BeginDep, caller: JobWriter
) -> Response:
    """Show what follows from a decision, and ask for it."""
    return _ask(request, begin, caller.tenant_id, job_id, verb)


@router.post("/{verb}")
def decided(
    job_id: str,
    verb: str,
    request: Request,
    begin: BeginDep,
    parts: PartsDep,
    caller: JobWriter,
    form: FormDep,
) -> Response:
    """Do what was decided, and show the erasure."""
    decision = _decision(verb)
    try:
        _do(begin, caller.tenant_id, job_id, verb, form, parts.settings)
    except ValidationError:
        problem = NO_GROUND if verb == "refuse" and form.get("ground") is None else NO_REASON
        return _ask(request, begin, caller.tenant_id, job_id, verb, form=form, problem=problem)
    except Conflict as error:
        return _ask(
            request,
            begin,
            caller.tenant_id,
            job_id,
            verb,
            form=form,
            problem=error.detail,
            status=409,
        )
    return go(f"{PREFIX}/erasures/{job_id}?done={decision.done}")


def _do(
    begin: Begin, tenant_id: str, job_id: str, verb: str, form: Form, settings: Settings
) -> None:
    reason = form.text("reason")
    with begin() as session:
        match verb:
            case "hold":
                controller_decisions.hold(
                    session, tenant_id, job_id, _REASON.validate_python(reason)
                )
            case "release":
                controller_decisions.release(session, tenant_id, job_id, settings)
            case "extend":
                controller_decisions.extend(
                    session, tenant_id, job_id, _REASON.validate_python(reason), settings
                )
            case "refuse":
                ruling = RefusalRequest.model_validate(
                    {"ground": form.get("ground"), "detail": reason or None}
                )
                controller_decisions.refuse(session, tenant_id, job_id, ruling)
            case "cancel":
                ending.cancel(session, tenant_id, job_id)


def _ask(
    request: Request,
    begin: Begin,
    tenant_id: str,
    job_id: str,
    verb: str,
    *,
    form: Form | None = None,
    problem: str | None = None,
    status: int = 422,
) -> Response:
    decision = _decision(verb)
    with begin() as session:
        job = queries.get(session, tenant_id, job_id)
    return render(
        request,
        "decide.html",
        status=status if problem else 200,
        job=job,
        title=words.target(job.request),
        decision=decision,
        allowed=verb in possible(job),
        grounds={ground.value: text for ground, text in words.GROUNDS.items()},
        reason=form.get("reason") if form else "",
        ground=form.get("ground") if form else "",
        problem=problem,
    )


def _decision(verb: str) -> words.Decision:
    if verb not in words.DECISIONS:
        raise NotFound("decision", verb, listed="the page of the erasure")
    return words.DECISIONS[verb]

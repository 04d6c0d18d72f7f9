"""What the console says, in one place, so that it can be translated."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.schemas.job import EventView, JobView
from shared.schemas.request import ErasureRequest, Thresholds
from shared.states import Ground, JobState, Stage

SOON = timedelta(days=3)
THRESHOLDS_NOT_MET = "thresholds_not_met"

STATES = {
    JobState.QUEUED: "Waiting",
    JobState.RUNNING: "Running",
    JobState.SUCCEEDED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
STAGES = {
    Stage.PREPARING: "loading the model and measuring it as it is",
    Stage.SYNTHESIZING: "computing samples from names",
    Stage.FORGETTING: "forgetting",
    Stage.REMINDING: "reminding the model of what is to stay",
    Stage.RESTORING: "restoring what was lost on the way",
    Stage.AUDITING: "measuring the result",
    Stage.PUBLISHING: "writing weights and report",
}
METHODS: dict[str, tuple[str, str]] = {
    "auto": (
        "Try what fits",
        "Tries the methods that fit your images, one after the other, until one meets the limits.",
    ),
    "synthetic": (
        "From the name alone",
        "Takes the link between the name and its pictures out of both encoders. Someone with a "
        "few labelled"
        " images can still find traces in the image features.",
    ),
    "three_stage": (
        "From images, three stages",
        (
            "Forgets what your images show, reminds the model of what is close, restores the rest. "
            "The one for subgroups."
        ),
    ),
    "null_space": (
        "From the name, one step",
        "The fastest: one direction is removed. Other wordings of the name may still find it.",
    ),
    "delete": (
        "From images of what goes",
        "Trains the model to answer as if the class were not there.",
    ),
    "slug": (
        "One layer",
        (
            "Changes the one layer that matters most. Fast; other wordings of the name often still "
            "find it."
        ),
    ),
    "clip_erase": (
        "Pulled apart",
        "Pulls images and names of the class apart. Costs more elsewhere.",
    ),
    "pbu": (
        "Prompt by prompt",
        "Unlearns under many wordings. Holds well, costs more elsewhere.",
    ),
    "gradient_ascent": ("Control", "A plain baseline to compare with. It rarely meets the limits."),
}
THRESHOLDS = {
    "max_forget_accuracy": "Still recognised, of what is to be forgotten",
    "max_retain_drop": "Lost on the rest of the target’s own set",
    "max_transfer_drop": "Lost on the other sets, the worst of them",
    "max_synthetic_accuracy": "Still recognised, of synthetic samples",
    "max_earlier_accuracy": "Still recognised, of what earlier erasures took away",
}
EVENTS = {
    "job.queued": "The request came in",
    "job.started": "A worker took it",
    "job.requeued": "It was put back into the queue",
    "job.held": "It was put on hold",
    "job.released": "The hold ended",
    "job.extended": "The period was extended",
    "job.refused": "It was refused",
    "job.cancel_requested": "Its end was asked for",
    "job.cancelled": "It was cancelled",
    "job.succeeded": "It succeeded",
    "job.failed": "It failed",
    "job.deadline_at_risk": "It is expected to end too late",
    "job.superseded_model": "A newer erasure took the place of its weights",
}
GROUNDS = {
    Ground.IDENTITY_NOT_VERIFIED: "The person could not be identified (Art. 12(2), 12(6))",
    Ground.MANIFESTLY_UNFOUNDED: "The request is manifestly unfounded (Art. 12(5)(b))",
    Ground.EXCESSIVE: (
        "The request is excessive, as when it is repeated without a reason (Art. 12(5)(b))"
    ),
    Ground.NO_MATCH: "Nothing of the person is in the model",
    Ground.NO_GROUND_FOR_ERASURE: "None of the grounds for erasure applies (Art. 17(1))",
    Ground.FREEDOM_OF_EXPRESSION: "Freedom of expression and information (Art. 17(3)(a))",
    Ground.LEGAL_OBLIGATION: "A legal obligation, or a task in the public interest (Art. 17(3)(b))",
    Ground.PUBLIC_HEALTH: "Public health (Art. 17(3)(c))",
    Ground.ARCHIVING_OR_RESEARCH: "Archiving, research or statistics (Art. 17(3)(d))",
    Ground.LEGAL_CLAIMS: "Legal claims (Art. 17(3)(e))",
}
PURGES = {
    "job_ended": "the last erasure that used it has ended",
    "unused": "no erasure used it in time",
    "retention_ended": "the time for which it was kept is over",
    "abandoned": "its upload was never finished",
    "restored": "a backup had brought it back",
    "deleted": "its owner deleted it",
}
DONE = {
    "held": "The erasure is on hold. The clock stands still.",
    "released": "The hold has ended; the clock goes on.",
    "extended": "The period was extended by two further months.",
    "refused": "The erasure was refused. It will not run.",
    "cancelled": "The erasure was cancelled.",
    "submitted": "The erasure is in the queue.",
    "existing": (
        "An erasure for this reference was there already: this one. No second one was made."
    ),
    "uploaded": "The data set was checked and stored.",
    "model_uploaded": "The model was checked and stored.",
    "dataset_deleted": "The data set was deleted. Its receipt is below.",
    "model_deleted": "The model and its files were deleted.",
    "signed_out": "You have signed out.",
}
"""What is said after something was done, by the word that stands in the address."""


class Decision(NamedTuple):
    """Something that a person may rule on an erasure, and what follows from it."""

    verb: str
    button: str
    title: str
    ground: str
    consequences: Sequence[str]
    reason: str | None
    """What the reason is asked for as; None where there is none to give."""
    done: str
    grave: bool = False


DECISIONS = {
    decision.verb: decision
    for decision in (
        Decision(
            "hold",
            "Put on hold",
            "Stop the clock",
            (
                "Art. 12(6) GDPR: where there are reasonable doubts about who asks, further "
                "information may be asked for."
            ),
            (
                "No worker takes the erasure while it is on hold.",
                "Whole days on hold move the due date; the rest of a day does not.",
                "You can end the hold at any time.",
            ),
            "What is in doubt, and what was asked of the person",
            "held",
        ),
        Decision(
            "release",
            "End the hold",
            "Let the clock go on",
            "The doubts about who asks are settled.",
            (
                "The erasure goes back to its place in the queue.",
                "The due date moves by the whole days on hold.",
            ),
            None,
            "released",
        ),
        Decision(
            "extend",
            "Extend the period",
            "Extend by two further months",
            "Art. 12(3) GDPR: where necessary, for the complexity and number of requests.",
            (
                "The due date moves by two months. That is possible once.",
                "You must tell the person within the first month, and say why.",
                "The erasure stays in the queue and may run earlier.",
            ),
            "Why it takes longer, as you tell the person",
            "extended",
        ),
        Decision(
            "refuse",
            "Refuse",
            "Refuse the erasure",
            "Art. 12(4), 12(5) and 17(3) GDPR: a controller that does not act says why, and that "
            "the person may complain to an"
            " authority and go to court.",
            (
                "The erasure ends as cancelled, with the ground on record. That cannot be undone.",
                (
                    "Nothing is changed in the model. Images that were uploaded to be forgotten "
                    "are "
                    "deleted."
                ),
                "You must tell the person within one month of the request.",
            ),
            "What the file should say (optional)",
            "refused",
            True,
        ),
        Decision(
            "cancel",
            "Cancel",
            "Cancel the erasure",
            (
                "This is no refusal under the law: use it where the request was a mistake or comes "
                "again in another form."
            ),
            (
                (
                    "It ends at once while it waits, within seconds while it runs. That cannot be "
                    "undone."
                ),
                "No weights are published. Images that were uploaded to be forgotten are deleted.",
            ),
            None,
            "cancelled",
            True,
        ),
    )
}


def target(request: ErasureRequest | None) -> str:
    """Return what is to be forgotten."""
    if request is None:
        return "(stored by an earlier version)"
    wanted = request.target
    if wanted.type == "subgroup":
        return f"“{wanted.subgroup}” of “{wanted.class_}”"
    names = [f"“{name}”" for name in wanted.names()]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def method(name: str) -> str:
    """Return what a method is called."""
    return METHODS[name][0] if name in METHODS else name


def state(job: JobView) -> str:
    """Return how a job stands, in a word or two."""
    if job.hold is not None:
        return "On hold"
    if job.refusal is not None:
        return "Refused"
    if job.state is JobState.FAILED and job.error and job.error.code == THRESHOLDS_NOT_MET:
        return "Missed"
    return STATES[job.state]


def tone(job: JobView) -> str:
    """Return the colour of a job's state."""
    if job.hold is not None:
        return "held"
    return {JobState.SUCCEEDED: "passed", JobState.FAILED: "failed"}.get(job.state, job.state.value)


def stage(job: JobView) -> str:
    """Return what a job is doing."""
    if job.cancel_requested and job.state is JobState.RUNNING:
        return "being cancelled"
    return STAGES[job.stage] if job.stage else ""


class Due(NamedTuple):
    """How a job stands to its date."""

    text: str
    tone: str
    """`late`, `soon`, `held`, `risk` or nothing."""


def due(job: JobView, now: datetime | None = None) -> Due:
    """Return how long a job has, or how it kept its date."""
    if job.due_at is None:
        return Due("no date", "")
    if job.finished_at is not None:
        late = job.finished_at > job.due_at
        return Due("ended late" if late else "ended in time", "late" if late else "")
    if job.hold is not None:
        return Due("clock stopped", "held")
    left = job.due_at - (now or datetime.now(UTC))
    if left < timedelta():
        return Due(f"{_days(-left)} overdue", "late")
    text = f"{_days(left)} left"
    if job.at_risk_at is not None:
        return Due(f"{text}, at risk", "risk")
    return Due(text, "soon" if left < SOON else "")


def _days(span: timedelta) -> str:
    if span < timedelta(days=1):
        hours = int(span.total_seconds() // 3600)
        return "less than an hour" if hours == 0 else f"{hours} hour{'s' if hours > 1 else ''}"
    return f"{span.days} day{'s' if span.days > 1 else ''}"


def sentence(job: JobView) -> str:
    """Return what happened to a job, in a sentence or two."""
    what = target(job.request)
    match job.state:
        case JobState.QUEUED if job.hold is not None:
            return f"On hold: {job.hold.reason} No worker takes it, and the clock stands still."
        case JobState.QUEUED:
            return f"{what} is to be forgotten. The erasure waits for its turn."
        case JobState.RUNNING if job.cancel_requested:
            return "The erasure is being cancelled; its worker stops within seconds."
        case JobState.RUNNING:
            doing = STAGES[job.stage] if job.stage else "getting ready"
            return f"A worker is making the model forget {what}: {doing}."
        case JobState.SUCCEEDED:
            return (
                f"The model has forgotten {what}: every limit was met, and the new weights are "
                "published."
            )
        case JobState.CANCELLED if job.refusal is not None:
            return f"Refused: {GROUNDS[job.refusal.ground]}. Nothing was changed."
        case JobState.CANCELLED:
            return "Cancelled. Nothing was changed, and no weights were published."
    if job.error is not None and job.error.code == THRESHOLDS_NOT_MET:
        return (
            f"The model was edited to forget {what}, but missed a limit. The weights are kept back."
        )
    return (
        "The erasure ended without a verdict: "
        f"{job.error.message if job.error else 'its cause is not on record'}"
    )


def limits(thresholds: Thresholds) -> list[str]:
    """Return the limits that a job is judged by."""
    found = [
        f"{title}: at most {100 * limit:.1f} %"
        for name, title in THRESHOLDS.items()
        if (limit := getattr(thresholds, name)) is not None
    ]
    for bound in thresholds.measures:
        title = bound.measure.replace("_", " ").capitalize()
        found += [f"{title}: at most {bound.max:g}"] if bound.max is not None else []
        found += [f"{title}: at least {bound.min:g}"] if bound.min is not None else []
    return found or ["None: they were switched off, and whatever comes out is published."]


def event(entry: EventView) -> str:
    """Return what an event says."""
    if entry.type == "job.stage" and entry.data.get("stage") in set(Stage):
        text = STAGES[Stage(entry.data["stage"])]
        return text[0].upper() + text[1:]
    return EVENTS.get(entry.type, entry.type)


def event_detail(entry: EventView) -> str:
    """Return what an event has to add."""
    data = entry.data
    if entry.type == "job.refused" and data.get("ground") in set(Ground):
        return GROUNDS[Ground(data["ground"])]
    if entry.type == "job.started" and data.get("attempt", 1) != 1:
        return f"attempt {data['attempt']}"
    told = [str(data[name]) for name in ("reason", "code", "message") if data.get(name)]
    return " · ".join(told)

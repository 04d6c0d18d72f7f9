"""What of the service is silent beyond the gateway that is asked: relays, workers, the key that
signs.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from services.fleet import processes
from services.fleet.processes import Seen
from services.jobs import queue_stats
from services.jobs.queue_stats import Owed
from shared.states import DoorbellState, ProcessKind


@dataclass(frozen=True, slots=True)
class Findings:
    """What an operator should know."""

    notes: tuple[str, ...]
    """One sentence for each thing that is amiss; none where all is well."""
    owed: Owed


def look(session: Session) -> Findings:
    """Return who is silent, and what is owed."""
    known = processes.seen(session)
    relays = [process for process in known if process.kind is ProcessKind.RELAY]
    workers = [process for process in known if process.kind is ProcessKind.WORKER]
    notes = [
        *_silent(relays, "relay", "efface relay"),
        *_silent(workers, "worker", "efface worker"),
    ]
    for relay in filter(_alive, relays):
        notes += [
            f"{part} of the relay on {relay.host} is stuck" for part in relay.facts.get("stuck", ())
        ]
    if any(map(_alive, relays)) and not any(
        r.facts.get("signing_key") for r in filter(_alive, relays)
    ):
        notes.append(
            "no relay has a key that signs certificates; 'efface keys signing create' makes one"
        )
    deaf = [
        w.host for w in filter(_alive, workers) if w.facts.get("doorbell") == DoorbellState.SILENT
    ]
    notes += [
        f"the worker on {host} hears no messages; it looks for jobs by itself" for host in deaf
    ]
    return Findings(tuple(notes), queue_stats.owed(session))


def _silent(of_kind: list[Seen], name: str, command: str) -> list[str]:
    if any(map(_alive, of_kind)):
        return []
    if of_kind:
        return [f"no {name} was heard of for {of_kind[0].silent_seconds:.0f} s"]
    return [f"no {name} was seen; '{command}' starts one"]


def _alive(process: Seen) -> bool:
    return process.alive


def silent_here(session: Session, kind: ProcessKind, host: str) -> str | None:
    """Return why the process of this kind on this host does not count as healthy, None where it
    does.
    """
    here = [process for process in processes.seen(session, kind) if process.host == host]
    if not here:
        return f"no {kind} on {host} has said that it lives"
    if not here[0].alive:
        return f"the {kind} on {host} was not heard of for {here[0].silent_seconds:.0f} s"
    if stuck := here[0].facts.get("stuck"):
        return f"the {kind} on {host} is stuck in {', '.join(stuck)}"
    return None

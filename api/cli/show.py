"""What the terminal shows: results on stdout, progress on stderr."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.client import Advance
from shared.schemas.job import JobView

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def transfer(label: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar over bytes, and give what moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def upload(path: Path) -> Any:  # noqa: ANN401 - a context manager
    """Show a progress bar over the upload of a file."""
    return transfer(f"uploading {path.name}", path.stat().st_size)


def follow(jobs: Iterable[JobView]) -> JobView:
    """Show a job as it goes on, a bar for each stage (a line, where there is no terminal);
    return it as it ended.
    """
    columns = (
        TextColumn("  {task.description:<13}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    )
    ended: JobView | None = None
    with Progress(
        *columns, TimeElapsedColumn(), console=err, disable=not err.is_terminal
    ) as progress:
        task: TaskID | None = None
        shown = ""
        for ended in jobs:
            now = str(ended.stage or ended.state)
            if task is not None and now != shown:
                progress.update(task, total=1.0, completed=1.0)
                progress.stop_task(task)
            if now != shown and not ended.state.final:
                task, shown = (
                    progress.add_task(now, total=None),
                    now,
                )  # moves to and fro until there is a number
                if not err.is_terminal:
                    err.print(f"  {now}")
            if task is not None and now == shown:
                progress.update(
                    task, total=1.0 if ended.progress else None, completed=ended.progress
                )
    if ended is None:
        raise RuntimeError("a job is seen at least once")
    return ended


def warnings(job: JobView) -> None:
    """Show what a job's request was told when it came."""
    for warning in job.warnings:
        err.print(f"warning: {warning.pointer}: {warning.detail}", markup=False)


def table(*columns: str) -> Table:
    """Return an empty table whose first column, the ids, is never cut."""
    empty = Table(*columns, box=None, pad_edge=False)
    empty.columns[0].no_wrap = True
    return empty


def jobs_table(jobs: Iterable[JobView]) -> Table:
    """Return jobs as a table."""
    rows = table("id", "state", "method", "target", "external id", "created")
    for job in jobs:
        target = ", ".join(job.request.target.names()) if job.request else ""
        method = job.request.method.name if job.request else ""
        created = f"{job.created_at:%Y-%m-%d %H:%M}"
        rows.add_row(job.id, job.state, method, target, job.external_id or "", created)
    return rows


def report_table(report: Mapping[str, Any]) -> Table:
    """Return what a report measured, before and after, with the thresholds."""
    rows = Table("measured", "n", "before", "after", box=None, pad_edge=False, padding=(0, 2))
    for column in rows.columns[1:]:
        column.justify = "right"
    for label, change in _changes(report):
        if change is not None:
            after = change["after"]
            interval = (
                f"{_percent(after)} [dim][{100 * after['low']:.1f}, "
                f"{100 * after['high']:.1f}][/dim]"
            )
            rows.add_row(label, str(after["n"]), _percent(change["before"]), interval)
    for threshold in report["thresholds"]:
        mark = "[green]met[/green]" if threshold["passed"] else "[red]missed[/red]"
        value = f"{threshold['value']:.3f} (limit {threshold['limit']:g})"
        rows.add_row(threshold["measure"], "", "", f"{value} {mark}")
    return rows


def _changes(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    target = report["target"]
    yield "target, real images", target["accuracy"]
    yield "target, synthetic samples", target["synthetic_accuracy"]
    yield "rest of the target's class", target["siblings"]
    for evaluation in report["evaluations"]:
        yield f"{evaluation['name']}: what stays", evaluation["retain"]


def _percent(estimate: Mapping[str, Any]) -> str:
    return f"{100 * estimate['value']:.1f} %"

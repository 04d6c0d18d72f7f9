"""What goes into each section of the page, and what is left out where there is too much of it."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from shared.schemas.measure_catalogue import SAMPLES
from shared.schemas.measures import Curve, Measure
from shared.schemas.report import ClassResult, EvaluationResult, Report
from worker.recording import CURVE_PREFIX
from worker.report_page import charts
from worker.report_page.words import GROUPS, set_title

MOST_BARS, WORST, BEST = 40, 12, 6
"""A set of up to 40 classes is drawn whole; of a larger one what is forgotten, and the worst and
the best of the rest.
"""
MOST_FORGOTTEN = 12
BARS_A_CHART = 14
MOST_SETS, MOST_ROWS = 8, 2500
"""Of sets with bars, and of rows in the tables of classes, over all sets: the page stays below 2
MB.
"""
LONGEST_SHEET, LONGEST_NOTES = 600_000, 40_000
WIDEST_LABEL = 18.0
"""In characters of a Latin script."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart and what a screen reader says of it."""

    svg: Markup
    words: str


@dataclass(frozen=True, slots=True)
class SetSection:
    """One evaluation set."""

    result: EvaluationResult
    drawings: tuple[Drawing, ...]
    drawn: int
    rows: tuple[ClassResult, ...]
    """Of the table of all classes; empty where the page has no room for them."""


@dataclass(frozen=True, slots=True)
class MeasureTable:
    """Measures that were taken on the same kind of place: of each measure one row of a place."""

    title: str
    """Empty where there is but one table."""
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class GroupSection:
    """The measures and the curves of one group."""

    name: str
    title: str
    words: str
    tables: tuple[MeasureTable, ...]
    curves: tuple[tuple[Curve, Drawing], ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All that the tables hold."""
        return tuple(measure for table in self.tables for measure in table.measures)

    @property
    def with_original(self) -> bool:
        """True where at least one measure has a value of the original."""
        return any(measure.original is not None for measure in self.measures)

    @property
    def with_reference(self) -> bool:
        """True where at least one measure has a value of a reference."""
        return any(measure.reference is not None for measure in self.measures)


def set_sections(report: Report) -> list[SetSection]:
    """Return a section for each evaluation set: the target's own first, then those that lost
    most.
    """
    ordered = sorted(report.evaluations, key=lambda e: (e.role != "target", _gain(e)))
    sections, rows_left = [], MOST_ROWS
    for number, result in enumerate(ordered):
        rows = _in_order(result.classes)
        shown = _shown(rows) if number < MOST_SETS else []
        fits = len(rows) <= rows_left
        rows_left -= len(rows) if fits else 0
        drawings = _bars(
            shown,
            set_title(result.name),
            report,
            "the table that follows" if fits else "report.json",
        )
        sections.append(SetSection(result, drawings, len(shown), tuple(rows) if fits else ()))
    return sections


def step_curves(report: Report) -> tuple[list[tuple[Curve, Drawing]], list[tuple[Curve, Drawing]]]:
    """Return the curves of the edit itself: how much was recognised in each of its stages, and
    every other number.
    """
    curves = [c for c in report.curves if c.name.startswith(CURVE_PREFIX) and len(c.unlearned) > 1]
    shares = [c for c in curves if charts.is_share(c)]
    others = [c for c in curves if c not in shares]
    return [(c, _drawing(c)) for c in shares], [(c, _drawing(c)) for c in others]


def group_sections(report: Report) -> list[GroupSection]:
    """Return a section for each group of which something was measured. Curves of the audit stand
    with relearning.
    """
    audited = [
        c
        for c in report.curves
        if not c.name.startswith(CURVE_PREFIX) and (c.unlearned or c.original)
    ]
    sections = []
    for name, (title, words) in GROUPS.items():
        measures = [m for m in report.measures if m.group == name and m.counts]
        curves = tuple((c, _drawing(c)) for c in audited) if name == "relearning" else ()
        if measures or curves:
            sections.append(GroupSection(name, title, words, _tables(measures), curves))
    return sections


def uncounted(report: Report) -> list[Measure]:
    """Return what was measured with words that the original does not know: it is no sign of
    anything, and stands apart.
    """
    return [measure for measure in report.measures if not measure.counts]


def _tables(measures: Sequence[Measure]) -> tuple[MeasureTable, ...]:
    """Return a table for each place where a measure was taken more than once; rows of samples
    never stand among real images.
    """
    twice = {m.name for m in measures if sum(other.name == m.name for other in measures) > 1}
    if not twice:
        return (MeasureTable("", tuple(measures)),) if measures else ()
    places = list(dict.fromkeys(m.where for m in measures if m.name in twice))
    places.sort(key=lambda place: place == SAMPLES)
    rest = [
        m for m in measures if m.where not in places
    ]  # such as texts: there is nothing to tell them from
    tables = [
        MeasureTable(f"On {set_title(place)}", tuple(m for m in measures if m.where == place))
        for place in places
    ]
    return (*tables, MeasureTable("On anything else", tuple(rest))) if rest else tuple(tables)


def contact_sheet(report: Report) -> str | None:
    """Return the method's sheet of samples, where it left one that is an image and not too
    large.
    """
    samples = report.method.get("samples")
    sheet = samples.get("contact_sheet") if isinstance(samples, dict) else None
    if not isinstance(sheet, str) or len(sheet) > LONGEST_SHEET:
        return None
    return (
        sheet if sheet.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) else None
    )


def notes(report: Report) -> str:
    """Return what the method has to say as JSON, without its pictures."""
    text = json.dumps(_without_pictures(report.method), indent=2, ensure_ascii=False)
    return (
        text
        if len(text) <= LONGEST_NOTES
        else text[:LONGEST_NOTES] + "\n\u2026 the rest is in report.json"
    )


def _gain(result: EvaluationResult) -> float:
    return result.retain.after.value - result.retain.before.value if result.retain else 0.0


def _in_order(classes: Sequence[ClassResult]) -> list[ClassResult]:
    """Return what is forgotten first, then its siblings, then the rest with what lost most
    first.
    """
    roles = ("forget", "sibling", "retain")
    return sorted(
        classes,
        key=lambda c: (
            roles.index(c.role),
            c.accuracy.after.value - c.accuracy.before.value,
            c.accuracy.after.value,
        ),
    )


def _shown(rows: list[ClassResult]) -> list[ClassResult]:
    if len(rows) <= MOST_BARS:
        return rows
    rest = [row for row in rows if row.role != "forget"]
    return (
        [row for row in rows if row.role == "forget"][:MOST_FORGOTTEN] + rest[:WORST] + rest[-BEST:]
    )


def _bars(
    rows: Sequence[ClassResult], name: str, report: Report, numbers_in: str
) -> tuple[Drawing, ...]:
    count = -(-len(rows) // BARS_A_CHART)
    bounds = [round(number * len(rows) / count) for number in range(count + 1)] if count else []
    return tuple(
        Drawing(
            charts.class_bars(part, [_label(row, report) for row in part]),
            f"Bars: accuracy before and after, with 95 % intervals, for {len(part)} classes of "
            f"{name}."
            f" The numbers are in {numbers_in}.",
        )
        for part in (rows[start:end] for start, end in pairwise(bounds))
    )


def _label(row: ClassResult, report: Report) -> str:
    """Return the name of a row, cut to the room that it has; in a subgroup request the class is
    there twice.
    """
    target = report.request.target
    if target.type == "class":
        return _cut(row.name)
    suffix = {"forget": f" ({target.subgroup})", "sibling": " (others)"}.get(row.role, "")
    return _cut(row.name + suffix)


def _cut(label: str) -> str:
    """Return a label, its middle left out where it is too long: long names often differ at their
    ends alone.
    """
    if _width(label) <= WIDEST_LABEL:
        return label
    start, end = len(label) // 2, len(label) // 2
    while _width(label[:start]) + 1 + _width(label[end:]) > WIDEST_LABEL:
        start, end = (
            (start - 1, end) if _width(label[:start]) >= _width(label[end:]) else (start, end + 1)
        )
    return f"{label[:start].rstrip()}\u2026{label[end:].lstrip()}"


def _width(text: str) -> float:
    return sum(
        1.8 if unicodedata.east_asian_width(character) in "WF" else 1.0 for character in text
    )


def _drawing(shown: Curve) -> Drawing:
    points = shown.unlearned or shown.original
    first, last = points[0], points[-1]
    words = (
        f"{shown.title}: {first.y:.3g} at {shown.x_label} {first.x:g}, {last.y:.3g} at "
        f"{shown.x_label} {last.x:g}."
    )
    return Drawing(charts.curve(shown), words)


def _without_pictures(value: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    if isinstance(value, dict):
        return {key: _without_pictures(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_pictures(item) for item in value]
    return "(a picture)" if isinstance(value, str) and value.startswith("data:") else value

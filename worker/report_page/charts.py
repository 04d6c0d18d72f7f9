"""The charts of the page, drawn by Vega-Lite (vl-convert): in this process, with no browser, no
network and no script.

Its SVG carries presentation attributes alone, no style, so that a strict Content-Security-Policy
leaves it as it is; colours are custom properties of the page, so that dark mode and print reach
into the charts; the same data give the same bytes.

Every chart is 360 units wide: what fits a phone at its natural size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert
from markupsafe import Markup

from shared.schemas.measures import Curve, CurvePoint
from shared.schemas.report import Change, ClassResult

WIDTH = 360
ROW, BAR = 30, 9
NUMBERS = 92
"""Units at the right for the two numbers of a row."""
CHARACTER = 7.4
"""Units that a bold character of a label takes, at 12 units of size, in a wide face."""
NARROWEST_LABELS, WIDEST_LABELS = 48, 136
FEWEST = 2
"""Of so few points no line is drawn."""
FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, MUTED, RULE, PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--paper)"
BEFORE, AFTER, REFERENCE = "var(--before)", "var(--after)", "var(--reference)"

Spec = dict[str, Any]


def class_bars(rows: Sequence[ClassResult], labels: Sequence[str]) -> Markup:
    """Return before and after of each class as a pair of bars with 95 % whiskers; `labels` says
    what each row is called.
    """
    room = min(max(max(map(len, labels)) * CHARACTER, NARROWEST_LABELS), WIDEST_LABELS)
    plot = WIDTH - room - NUMBERS - 8
    data = [
        _bar_row(number, row, label)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    layers = [
        _pair(data, "before", BEFORE, -BAR / 2 - 0.5),
        _pair(data, "after", AFTER, BAR / 2 + 0.5),
        *(_whisker(data, "before", -BAR / 2 - 0.5, *line) for line in ((PAPER, 3.5), (INK, 1.2))),
        *(_whisker(data, "after", BAR / 2 + 0.5, *line) for line in ((PAPER, 3.5), (INK, 1.2))),
        *_text(data, "label", x=-8),
        *_text(data, "before_text", x=plot + 46, colour=MUTED),
        *_text(data, "after_text", x=plot + NUMBERS),
    ]
    share = {"domain": [0, 1], "nice": False}
    axis = _axis(values=[0, 0.5, 1], format="%", orient="top")
    for layer in layers[:6]:
        layer["encoding"]["x"] |= {"scale": share, "axis": axis, "title": None}
    return _drawn(
        {"width": plot, "height": ROW * len(rows), "layer": layers},
        left=room + 8,
        right=NUMBERS,
        top=20,
        bottom=2,
    )


def curve(shown: Curve) -> Markup:
    """Return a curve: the unlearned model as a line, the original and the reference beside it
    where they are known.
    """
    series = {
        "original": shown.original,
        "unlearned": shown.unlearned,
        "reference": shown.reference,
    }
    colours = {"original": BEFORE, "unlearned": AFTER, "reference": REFERENCE}
    values = [point.y for points in series.values() for point in points]
    share = bool(values) and min(values) >= 0 and max(values) <= 1
    y = {
        "field": "y",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, 1]} if share else {"zero": True, "nice": True},
        "axis": _axis(tickCount=5, format="%" if share and is_share(shown) else ".6~g"),
    }
    last = max((point.x for points in series.values() for point in points), default=0.0)
    ticks: Spec = {"values": list(range(int(last) + 1))} if last < 8 else {"tickCount": 6}
    x = {
        "field": "x",
        "type": "quantitative",
        "title": shown.x_label,
        "scale": {"zero": True, "nice": False},
        "axis": _axis(format=".6~g", grid=False, **ticks),
    }
    layers = [
        _line(points, colours[name], x, y, dashed=name == "reference")
        for name, points in series.items()
        if points
    ]
    return _drawn(
        {"width": WIDTH - 62, "height": 150, "layer": layers}, left=46, right=16, top=8, bottom=36
    )


def is_share(shown: Curve) -> bool:
    """True if a curve shows a share of images, false for a loss or another number."""
    return any(
        word in shown.y_label.lower()
        for word in ("accuracy", "recall", "recognised", "kept", "alone", "share")
    )


def _bar_row(number: int, row: ClassResult, label: str) -> Mapping[str, Any]:
    values: dict[str, Any] = {
        "row": number,
        "label": label,
        "weight": 700 if row.role == "forget" else 400,
    }
    change: Change = row.accuracy
    for when, estimate in (("before", change.before), ("after", change.after)):
        values |= {when: estimate.value, f"{when}_low": estimate.low, f"{when}_high": estimate.high}
        values[f"{when}_text"] = f"{100 * estimate.value:.1f}"
    return values


def _place() -> Spec:
    return {"field": "row", "type": "ordinal", "axis": None, "scale": {"padding": 0}}


def _pair(data: Sequence[Mapping[str, Any]], when: str, colour: str, offset: float) -> Spec:
    return {
        "data": {"values": data},
        "mark": {"type": "bar", "color": colour, "height": BAR, "yOffset": offset},
        "encoding": {"y": _place(), "x": {"field": when, "type": "quantitative"}},
    }


def _whisker(
    data: Sequence[Mapping[str, Any]], when: str, offset: float, colour: str, width: float
) -> Spec:
    ends = {"x": {"field": f"{when}_low", "type": "quantitative"}, "x2": {"field": f"{when}_high"}}
    mark = {"type": "rule", "color": colour, "strokeWidth": width, "yOffset": offset}
    return {"data": {"values": data}, "mark": mark, "encoding": {"y": _place()} | ends}


def _text(
    data: Sequence[Mapping[str, Any]], field: str, *, x: float, colour: str = INK
) -> list[Spec]:
    """Return right-aligned texts; rows of what is forgotten in bold."""
    mark = {"type": "text", "align": "right", "baseline": "middle", "color": colour, "fontSize": 12}
    encoding: Spec = {"y": _place(), "x": {"value": x}, "text": {"field": field, "type": "nominal"}}
    return [
        {"data": {"values": rows}, "mark": mark | {"fontWeight": weight}, "encoding": encoding}
        for weight in (700, 400)
        if (rows := [row for row in data if row["weight"] == weight])
    ]


def _line(points: Sequence[CurvePoint], colour: str, x: Spec, y: Spec, *, dashed: bool) -> Spec:
    if len(points) <= FEWEST:  # two measurements say nothing of what is between them
        mark: Spec = {"type": "point", "color": colour, "filled": True, "size": 44}
    else:
        mark = {"type": "line", "color": colour, "strokeWidth": 2}
    if dashed and len(points) > FEWEST:
        mark["strokeDash"] = [5, 4]
    if FEWEST < len(points) <= 40:
        mark["point"] = {"color": colour, "filled": True, "size": 28}
    rows = [{"x": point.x, "y": point.y} for point in points]
    return {"data": {"values": rows}, "mark": mark, "encoding": {"x": x, "y": y}}


def _axis(**options: object) -> Spec:
    return {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": RULE,
        "domain": False,
        "ticks": False,
    } | options


def _drawn(spec: Spec, **padding: float) -> Markup:
    config = {
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": {
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": 400,
            "labelPadding": 5,
        },
        "aria": False,
    }
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "padding": padding,
        "autosize": {"type": "none"},
        "config": config,
    } | spec
    svg = vl_convert.vegalite_to_svg(whole, vl_version="5.21", allowed_base_urls=[])
    return Markup(svg)  # noqa: S704 - Vega escapes what it writes; a test tries it with hostile labels

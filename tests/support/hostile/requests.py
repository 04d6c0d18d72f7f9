"""Hostile bodies of `POST /jobs`: JSON that two parsers read differently, numbers and texts beyond all range."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.hostile import LIMITS, Hostile

JSON = "application/json"


def body(**changes: Any) -> dict[str, Any]:
    """Return a sound request on the model `mdl_alice`, with changes."""
    sound = {
        "model": {"id": "mdl_alice"},
        "target": {"type": "class", "class": "horse", "labels": ["horse", "cow"]},
        "method": {"name": "synthetic"},
    }
    return sound | changes


def raw(build: Callable[[], bytes], says: str, field: str = "", **changes: Any) -> Hostile:
    """Return a body as it is."""
    return Hostile(build, says, field=field, **({"content_type": JSON} | changes))


def wrong(field: str, says: str, **changes: Any) -> Hostile:
    """Return a sound request with changes."""
    return raw(lambda: json.dumps(body(**changes)).encode(), says, field)


def inside(text: str) -> Callable[[], bytes]:
    """Return a builder of a sound request with one more field, written as given."""
    return lambda: json.dumps(body()).encode()[:-1] + b", " + text.encode("utf-8", "surrogateescape") + b"}"


def parameter(name: str, value: object, says: str, method: str = "synthetic") -> Hostile:
    """Return a request with one parameter of a method that is out of range."""
    data = {"data": {"forget": "ds_x", "retain": "ds_x"}} if method == "three_stage" else {}
    return wrong(f"/method/parameters/{name}", says, method={"name": method, "parameters": {name: value}}, **data)


def target(field: str, says: str, **changes: Any) -> Hostile:
    """Return a request with another target."""
    return wrong(
        f"/target{field}", says, target={"type": "class", "class": "horse", "labels": ["horse", "cow"]} | changes
    )


OUT, NUMBER, LESS, MORE = "out of range", "is not a JSON number", "less than", "greater than"
TEXT = "control characters, line breaks or marks"

REQUESTS: dict[str, Hostile] = {
    # JSON.
    "no JSON": raw(lambda: b"{", "not acceptable JSON"),
    "no text": raw(lambda: b'"\xff\xfe"', "not valid UTF-8"),
    "UTF-16": raw(lambda: json.dumps(body()).encode("utf-16"), "not valid UTF-8"),
    "a list": raw(lambda: b"[]", "must be an object"),
    "nested 40,000 deep": raw(lambda: b"[" * 40_000, "nested"),
    "nested 33 deep": raw(inside('"metadata": ' + "[" * 33 + "]" * 33), "nested"),
    "field twice": raw(inside('"seed": 1, "seed": 2'), "given twice"),
    "field twice inside": raw(inside('"metadata": {"a": "1", "a": "2"}'), "given twice"),
    "NaN": raw(inside('"seed": NaN'), NUMBER),
    "infinity": raw(inside('"seed": -Infinity'), NUMBER),
    "number beyond all numbers": raw(inside('"seed": 1e400'), OUT),
    "number of 20,000 digits": raw(inside('"seed": ' + "9" * 20_000), OUT),
    "NUL in a text": raw(inside('"external_id": "a\\u0000b"'), "no text"),
    "half a character": raw(inside('"external_id": "\\ud800"'), "no text"),
    "over the limit": raw(lambda: b" " * (LIMITS["max_body_bytes"] + 1), "bytes", status=413),
    "no JSON by its type": raw(lambda: json.dumps(body()).encode(), "application/json", status=415, content_type="text/plain"),
    "a form": raw(lambda: b"model=mdl_alice", "application/json", status=415, content_type="application/x-www-form-urlencoded"),
    "no type": raw(lambda: json.dumps(body()).encode(), "application/json", status=415, content_type=""),
    # Numbers.
    "seed below zero": wrong("/seed", MORE, seed=-1),
    "seed of 2^32": wrong("/seed", LESS, seed=2**32),
    "seed of 2^63": raw(inside(f'"seed": {2**63}'), OUT),
    "seed as a text": wrong("/seed", "integer", seed="1"),
    "seed as a flag": wrong("/seed", "integer", seed=True),
    "seed as a fraction": wrong("/seed", "integer", seed=0.5),
    "threshold above one": wrong("/thresholds/max_forget_accuracy", LESS, thresholds={"max_forget_accuracy": 1.01}),
    "threshold below zero": wrong("/thresholds/max_retain_drop", MORE, thresholds={"max_retain_drop": -1e-9}),
    "threshold as a text": wrong("/thresholds/max_retain_drop", "number", thresholds={"max_retain_drop": "0.1"}),
    "threshold as a flag": wrong("/thresholds/max_retain_drop", "number", thresholds={"max_retain_drop": False}),
    "unknown threshold": wrong("/thresholds/max_harm", "not a field", thresholds={"max_harm": 1}),
    # Times.
    "time before time": wrong("/received_at", "between the years", received_at="0001-01-01T00:00:00+14:00"),
    "time after time": wrong("/received_at", "between the years", received_at="9999-12-31T23:59:59-14:00"),
    "time to come": wrong("/received_at", "lies in the future", received_at="2040-01-31T00:00:00Z"),
    "time without a zone": wrong("/received_at", "time zone", received_at="2026-01-01T00:00:00"),
    "time as a number": wrong("/received_at", "RFC 3339", received_at=1_700_000_000),
    "time as a number in a text": wrong("/received_at", "RFC 3339", received_at="1700000000"),
    "day that is none": wrong("/received_at", "day", received_at="2026-02-30T00:00:00Z"),
    # Parameters of methods.
    "two billion samples": parameter("samples_per_class", 2_000_000_000, LESS),
    "no sample": parameter("samples_per_class", 0, MORE),
    "samples as a text": parameter("samples_per_class", "16", "integer"),
    "samples as a flag": parameter("max_starts", True, "integer"),
    "endless steps": parameter("iterations", 10**12, LESS),
    "learning rate of a million": parameter("learning_rate", 1e6, LESS),
    "learning rate of zero": parameter("learning_rate", 0, MORE),
    "unknown mode": parameter("mode", "fastest", "must be"),
    "unknown parameter": parameter("__class__", "os.system", "not a field"),
    "rank of a million": parameter("rank", 1_000_000, LESS, "three_stage"),
    "weight beyond use": parameter("guard", 1e308, LESS, "three_stage"),
    "weight below zero": parameter("distillation", -1, MORE, "three_stage"),
    "decay of one": parameter("ema_decay", 1.0, LESS, "three_stage"),
    "unknown method": wrong("/method/name", "must be", method={"name": "rm -rf"}),
    "parameters as a list": wrong("/method/parameters", "must be an object", method={"name": "synthetic", "parameters": []}),
    # Names.
    "label with a control character": target("/labels/1", TEXT, labels=["horse", "co\x07w"]),
    "label with a line break": target("/labels/1", TEXT, labels=["horse", "cow\nIgnore that"]),
    "label that turns around": target("/labels/1", TEXT, labels=["horse", "\u202ewoc"]),
    "label with a hidden space": target("/labels/1", TEXT, labels=["horse", "c\u200bow"]),
    "label of 101 characters": target("/labels/1", "at most 100", labels=["horse", "c" * 101]),
    "empty label": target("/labels/1", "at least 1", labels=["horse", ""]),
    "label of white space": target("/labels/1", TEXT, labels=["horse", "\u3000"]),
    "label twice": target("/labels", "more than once", labels=["horse", "cow", "cow"]),
    "label twice in two cases": target("/labels", "more than once", labels=["horse", "cow", "COW"]),
    "label twice in two normal forms": target("/labels", "more than once", labels=["horse", "caf\u00e9", "cafe\u0301"]),
    "label twice in two widths": target("/labels", "more than once", labels=["horse", "cow", "\uff43\uff4f\uff57"]),
    "label twice by white space": target("/labels", "more than once", labels=["horse", "sea cow", "sea  cow"]),
    "1001 labels": target("/labels", "at most 1000", labels=["horse", *map(str, range(1000))]),
    "1001 synonyms": target("/synonyms", "at most 1000", synonyms=[*map(str, range(1001))]),
    "synonym that is a label in another case": target("/synonyms", "must stay apart", synonyms=["COW"]),
    "template that formats": target("/templates/0", "exactly once", templates=["{} {0.__class__}"]),
    "template with a line break": target("/templates/0", "control characters", templates=["a {}\n"]),
    "template of 300 characters": target("/templates/0", "at most 200", templates=["{}" + "x" * 300]),
    "id of 300 characters": wrong("/external_id", "at most 200", external_id="x" * 300),
    "id with an escape": wrong("/external_id", TEXT, external_id="\x1b[31m"),
    "17 notes": wrong("/metadata", "at most 16", metadata={str(i): "" for i in range(17)}),
    "note of 600 characters": wrong("/metadata/a", "at most 512", metadata={"a": "x" * 600}),
    # References.
    "model of another kind": wrong("/model/source", "must begin with", model={"source": "file:///etc/passwd"}),
    "model from a path": wrong("/model/source", "allows no path", model={"source": "local-dir:/etc"}),
    "model from a path up": wrong("/model/source", "allows no path", model={"source": "local-dir:../../../etc"}),
    "model from a path of 2000 characters": wrong("/model/source", "at most 1024", model={"source": "local-dir:/" + "x" * 2000}),
    "model from the hub": wrong("/model/source", "no model from a hub", model={"source": "hf-hub:a/b"}),
    "model by path as a tag": wrong("/model", "no model from a hub", model={"architecture": "RN50", "pretrained": "/etc/passwd"}),
    "model that is not there": wrong("/model/id", "there is no model", model={"id": "mdl_' OR 1=1 --"}),
    "reference that is not there": wrong("/audit/reference/id", "there is no model", audit={"reference": {"id": "mdl_0"}}),
    "reference from a path": wrong("/audit/reference/source", "allows no path", audit={"reference": {"source": "local-dir:/etc"}}),
    "reference of two kinds": wrong("/audit/reference", "exactly one", audit={"reference": {"id": "a", "source": "b"}}),
    "data from a path": wrong("/data/forget", "allows no path", data={"forget": "/etc/passwd"}),
    "data from a long path": wrong("/data/forget", "allows no path", data={"forget": "/" + "x" * 1000}),
}  # fmt: skip

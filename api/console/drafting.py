"""From the form of a new erasure to a request as the API takes it, and back. What the form does
not show stays as it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from api.console.page import Form
from shared.errors import FieldError
from shared.names import Spellings
from shared.schemas.dataset import DatasetView
from shared.schemas.measure_catalogue import RESERVED
from shared.schemas.methods import METHOD_IMAGES

ROLES = ("forget", "retain", "forget_test", "retain_test")
LIMITS = ("max_forget_accuracy", "max_retain_drop", "max_transfer_drop", "max_synthetic_accuracy")
TEXTS = ("model", "kind", "class_name", "subgroup", "synonyms", "labels", "method", *ROLES, *LIMITS)
FIELDS = (*TEXTS, "level", "external_id", "received_on")
MAX_LABELS = 1000

Body = dict[str, Any]

POINTERS = (
    ("/model", "model"),
    ("/target/class", "class_name"),
    ("/target/subgroup", "subgroup"),
    ("/target/synonyms", "synonyms"),
    ("/target/labels", "labels"),
    ("/target", "class_name"),
    ("/method", "method"),
    *((f"/data/{role}", role) for role in sorted(ROLES, reverse=True)),
    ("/data", "evaluation"),
    *((f"/thresholds/{name}", name) for name in LIMITS),
    ("/thresholds", "max_forget_accuracy"),
    ("/external_id", "external_id"),
    ("/received_at", "received_on"),
    ("/audit", "level"),
)
"""Fields of the form by where in the request an error points; the first that fits."""


def drafted(
    form: Form, base: Mapping[str, Any] | None, datasets: Mapping[str, DatasetView]
) -> Body:
    """Return the request that a form asks for.

    Args:
        form: what was filled in.
        base: an earlier request that this one begins with; what the form has no field for is taken
            from it.
        datasets: the tenant's data sets by id, for names and classes.
    """
    body: Body = deepcopy(dict(base or {}))
    if model := form.get("model"):
        body["model"] = {"id": model}
    used = [datasets[i] for i in _chosen(form) if i in datasets]
    body["target"] = _target(form, body.get("target", {}), used)
    body["method"] = _method(form, body.get("method", {}))
    body["data"] = _data(form, body.get("data", {}), datasets)
    body["thresholds"] = _thresholds(form, body.get("thresholds", {}))
    if form.get("level") == "thorough" or "audit" in body:
        body["audit"] = body.get("audit", {}) | {"level": form.get("level") or "standard"}
    for name, value in (("external_id", form.get("external_id")), ("received_at", _received(form))):
        body.pop(name, None)
        if value is not None:
            body[name] = value
    return {name: value for name, value in body.items() if value not in ({}, None)}


def wrong_numbers(form: Form) -> list[FieldError]:
    """Return the limits that are no numbers, which no request could hold."""
    return [
        FieldError(f"/thresholds/{name}", "is a share in percent, such as 5")
        for name in LIMITS
        if (text := form.get(name)) is not None and _share(text) is None
    ]


def filled(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's fields for a request."""
    target, data = body.get("target", {}), body.get("data", {})
    classes = target.get("class", ())
    synonyms = target.get("synonyms", ())
    fields: dict[str, Any] = dict.fromkeys(FIELDS, "")
    fields |= {
        "model": body.get("model", {}).get("id") or "",
        "kind": target.get("type", "class"),
        "class_name": classes if isinstance(classes, str) else ", ".join(classes),
        "subgroup": target.get("subgroup", ""),
        "synonyms": "" if isinstance(synonyms, dict) else ", ".join(synonyms),
        "labels": "\n".join(target.get("labels", ())),
        "method": body.get("method", {}).get("name", "auto"),
        "level": body.get("audit", {}).get("level", "standard"),
        "external_id": body.get("external_id") or "",
        "received_on": (body.get("received_at") or "")[:10],
        "evaluation": [entry["dataset"] for entry in data.get("evaluation", ())],
    }
    fields |= {role: data.get(role) or "" for role in ROLES}
    limits = body.get("thresholds", {})
    return fields | {
        name: f"{100 * limits[name]:g}" for name in LIMITS if limits.get(name) is not None
    }


def typed(form: Form) -> dict[str, Any]:
    """Return the form's fields as they were sent, to show them again."""
    return {name: form.get(name) or "" for name in FIELDS} | {"evaluation": form.all("evaluation")}


def by_field(errors: Iterable[FieldError]) -> dict[str, list[str]]:
    """Return what is wrong by the field of the form that it is about; what fits none stands
    under nothing.
    """
    found: dict[str, list[str]] = {}
    for error in errors:
        field = next((name for prefix, name in POINTERS if error.pointer.startswith(prefix)), "")
        found.setdefault(field, []).append(error.detail)
    return found


def _chosen(form: Form) -> list[str]:
    """Return the ids of the data sets that are chosen, those to measure on first: their classes
    name the labels.
    """
    ids = [*form.all("evaluation"), *(i for role in ROLES if (i := form.get(role)))]
    return list(dict.fromkeys(ids))


def _target(form: Form, base: Mapping[str, Any], used: Sequence[DatasetView]) -> Body:
    kind = form.get("kind") or "class"
    target = (
        dict(base)
        if base.get("type") == kind
        else {k: v for k, v in base.items() if k == "templates"}
    )
    names = form.lines("class_name") if kind == "class" else [form.text("class_name")]
    target |= {"type": kind, "class": names if len(names) > 1 else "".join(names)}
    if kind == "subgroup":
        target["subgroup"] = form.text("subgroup")
    if len(names) <= 1 or not isinstance(target.get("synonyms"), dict):
        target["synonyms"] = form.lines("synonyms")
    labels = form.lines("labels")
    if not labels and kind == "class":
        labels = list(Spellings([*(name for one in used for name in one.classes), *names]))[
            :MAX_LABELS
        ]
    target["labels"] = labels
    return {
        name: value
        for name, value in target.items()
        if value not in ([], ()) or (name == "labels" and kind == "class")
    }


def _method(form: Form, base: Mapping[str, Any]) -> Body:
    name = form.get("method") or "auto"
    return dict(base) if base.get("name") == name else {"name": name}


def _data(form: Form, base: Mapping[str, Any], datasets: Mapping[str, DatasetView]) -> Body:
    data = {name: value for name, value in base.items() if name not in (*ROLES, "evaluation")}
    data |= {role: value for role in ROLES if (value := form.get(role))}
    before = {entry["dataset"]: entry["name"] for entry in base.get("evaluation", ())}
    taken = [*RESERVED, *(entry["name"] for entry in base.get("earlier", ()))]
    entries = []
    for dataset in dict.fromkeys(form.all("evaluation")):
        known = datasets.get(dataset)
        name = _free(before.get(dataset) or (known.name if known else dataset), taken)
        taken.append(name)
        entries.append({"name": name, "dataset": dataset})
    if entries:
        data["evaluation"] = entries
    return data


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name that no other set of the request has."""
    name = name[:90]
    tries = (name, *(f"{name} {number}" for number in range(2, len(taken) + 3)))
    return next(one for one in tries if one not in Spellings(taken))


def _thresholds(form: Form, base: Mapping[str, Any]) -> Body:
    limits = {name: value for name, value in base.items() if name not in LIMITS}
    return limits | {
        name: share for name in LIMITS if (share := _share(form.get(name))) is not None
    }


def _share(text: str | None) -> float | None:
    try:
        return (
            None
            if text is None
            else round(float(text.replace(",", ".").removesuffix("%")) / 100, 6)
        )
    except ValueError:
        return None


def _received(form: Form) -> str | None:
    """Return the day of receipt as a time at noon: the same day in nearly every zone, and hours
    do not count.
    """
    day = form.get("received_on")
    return f"{day}T12:00:00Z" if day else None


SHOWN = {"forget": "images of what goes", "retain": "images of what stays"}
NEEDS = {
    name: f"Needs {' and '.join(SHOWN[role] for role in images)}." if images else "Needs no image."
    for name, images in METHOD_IMAGES.items()
}
"""What each method needs, in words."""

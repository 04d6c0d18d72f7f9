"""Every hostile archive, checkpoint and request gets a 4xx that names the field, and leaves nothing behind."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from shared.postgres.tables import Dataset, Job, JobEvent, Model, Outbox
from tests.support import requests
from tests.support.hostile import LIMITS, Hostile
from tests.support.hostile.archives import PNG, tarred, zipped
from tests.support.hostile.checkpoints import CHECKPOINTS, CONFIG_NAME, WEIGHTS_NAME
from tests.support.hostile.requests import REQUESTS, body
from tests.support.hostile.sets import ALL

KEPT = (Dataset, Model, Job, JobEvent, Outbox)
"""Tables that an accepted call writes to."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, so that every one that stays is seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def settings(settings):
    """The usual settings with small limits."""
    return settings.model_copy(update=LIMITS)


@pytest.fixture
def left_over(database, storage, temporary):
    """Counts what is there: rows, objects and temporary files."""

    def count() -> dict[str, int]:
        with database.transaction() as session:
            rows = {table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in KEPT}
        return rows | {"objects": len(storage.list("")), "temporary files": len(list(temporary.rglob("*")))}

    return count


def sent(
    client: httpx.Client, path: str, cases: Mapping[str, Hostile]
) -> Iterator[tuple[str, Hostile, httpx.Response]]:
    for name, hostile in cases.items():
        params = {} if path == "/jobs" else {"name": "hostile", "filename": hostile.filename} | dict(hostile.fields)
        headers = {"Content-Type": hostile.content_type} if hostile.content_type else {}
        yield name, hostile, client.post(path, params=params, headers=headers, content=hostile.build())


def complaint(hostile: Hostile, response: httpx.Response) -> str | None:
    """Return what is wrong with an answer; None if nothing is."""
    if response.status_code != hostile.status:
        return f"{response.status_code}, not {hostile.status}: {response.text[:300]}"
    if response.headers["Content-Type"] != "application/problem+json":
        return f"the answer is {response.headers['Content-Type']}"
    problem = response.json()
    if hostile.status == 422 and hostile.field not in [error["pointer"] for error in problem["errors"]]:
        return f"{hostile.field!r} is not named: {problem['errors']}"
    if hostile.says not in problem["detail"]:
        return f"{hostile.says!r} is not said: {problem['detail'][:300]}"
    if len(response.content) > 5000:
        return f"the answer has {len(response.content)} bytes"
    return None


@pytest.mark.parametrize(
    ("path", "cases", "at_least"),
    [("/datasets", ALL, 150), ("/models", CHECKPOINTS, 60), ("/jobs", REQUESTS, 70)],
    ids=["archives", "checkpoints", "requests"],
)
def test_hostile_input_is_refused_by_name_and_nothing_is_kept(
    alice, request_body, left_over, logs, path, cases, at_least, capsys
):
    before = left_over()
    answers = [
        (name, response.status_code, complaint(hostile, response))
        for name, hostile, response in sent(alice, path, cases)
    ]
    kept = {what: count - before[what] for what, count in left_over().items() if count != before[what]}

    with capsys.disabled():
        errors = sum(status >= 500 for _, status, _ in answers)
        print(f"\n{path}: {len(answers)} hostile cases, {errors} answers of 5xx, {sum(kept.values())} left behind")  # noqa: T201
    assert {name: wrong for name, _, wrong in answers if wrong} == {}
    assert kept == {}
    assert len(answers) >= at_least


def test_what_the_tables_start_from_is_taken(alice, request_body, left_over, tmp_path):
    """A refusal says something only if the same file without its fault is taken."""
    archives = [
        zipped([("horse/1.png", PNG)]),
        zipped([("0.png", PNG), ("0.cls", b"horse")]),
        tarred([("0.png", PNG), ("0.cls", b"horse"), ("0.left.png", PNG)]),
        tarred([("./horse/1.png", PNG)]),
        tarred([("0.png", PNG), ("0.cls", b"horse")]),
    ]
    taken = [alice.post("/datasets?name=x", content=archive) for archive in archives]
    weights = requests.small_clip(tmp_path / WEIGHTS_NAME).read_bytes()
    taken.append(
        alice.post(
            "/models?name=x",
            content=zipped([(CONFIG_NAME, json.dumps(requests.SMALL_CLIP).encode()), (WEIGHTS_NAME, weights)]),
        )
    )
    taken.append(alice.post("/jobs", json=body()))

    assert [response.status_code for response in taken] == [201, 201, 201, 201, 201, 201, 202]
    assert left_over()["objects"] == 7

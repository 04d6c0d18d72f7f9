"""Everything that can be checked about a request is checked before its job exists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.catalog import models
from services.jobs import lifecycle, queries, submission, validation
from shared.errors import InvalidRequest
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import Job, JobEvent, Outbox
from shared.schemas.job import JobDraft
from shared.schemas.model import ModelRegistration
from shared.schemas.model_reference import ModelReference
from shared.schemas.request import ErasureRequest
from shared.schemas.spec import JobSpec
from shared.settings import Settings
from shared.states import JobState
from tests.support import requests


@pytest.fixture
def errors(session: Session, tenant: str, settings: Settings) -> Callable[[ErasureRequest], dict[str, str]]:
    """Submits what is wrong; returns what is said about it, by pointer. No job comes of it."""

    def submit_wrong(request: ErasureRequest) -> dict[str, str]:
        with pytest.raises(InvalidRequest) as caught:
            submission.submit(session, tenant, request, settings)
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        return {error.pointer: error.detail for error in caught.value.errors}

    return submit_wrong


def test_job_event_and_outbox_row_are_one_transaction(
    database: Database, tenant: str, settings: Settings, clip: Path
) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        view = submission.submit(session, tenant, requests.names_only(clip, external_id="DSR-1"), settings)
        assert (view.state, view.attempt, view.external_id) == (JobState.QUEUED, 0, "DSR-1")
        assert session.scalars(select(Outbox.job_id)).all() == [view.id]
        assert session.execute(select(JobEvent.seq, JobEvent.type)).all() == [(1, "job.queued")]
        raise ZeroDivisionError
    with database.transaction() as session:
        for table in (Job, JobEvent, Outbox):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_validate_only_writes_nothing(session: Session, tenant: str, settings: Settings, clip: Path) -> None:
    view = submission.validated(session, tenant, requests.names_only(clip), settings)
    assert isinstance(view, JobDraft)
    assert view.thresholds.max_synthetic_accuracy == 0.05
    session.flush()
    for table in (Job, JobEvent, Outbox):
        assert session.scalar(select(func.count()).select_from(table)) == 0


def test_references_are_resolved(
    session: Session, tenant: str, settings: Settings, clip: Path, upload: Callable[..., str], tmp_path: Path
) -> None:
    registration = ModelRegistration(name="clip", model=ModelReference(source=f"local-dir:{clip}"))
    model = models.register(session, tenant, registration, settings)
    images, uploaded = requests.folder(tmp_path / "images", "dog", "cat"), upload("horse", "dog")
    data = {"evaluation": [{"name": "own", "dataset": uploaded}, {"name": "other", "dataset": str(images)}]}
    view = submission.submit(session, tenant, requests.names_only(clip, model={"id": model.id}, data=data), settings)
    spec = JobSpec.model_validate(session.get_one(Job, view.id).spec)
    assert (spec.model.reference, spec.model.id) == (f"local-dir:{clip}", model.id)
    assert [source.uri for source in spec.data.evaluation] == [
        f"storage:tenants/{tenant}/datasets/{uploaded}",
        str(images),
    ]
    assert view.thresholds.model_dump(exclude_none=True) == {
        "max_forget_accuracy": 0.05,
        "max_retain_drop": 0.02,
        "max_transfer_drop": 0.02,
        "measures": (),
    }


def test_warnings_stay_with_the_job_and_reach_its_worker(
    session: Session, tenant: str, settings: Settings, clip: Path, upload: Callable[..., str]
) -> None:
    data = {"evaluation": [{"name": "own", "dataset": upload("Horse", "dog", "zebra", images=1)}]}
    view = submission.submit(session, tenant, requests.names_only(clip, data=data), settings)
    said = " ".join(warning.detail for warning in view.warnings)
    assert {warning.pointer for warning in view.warnings} == {
        "/data/evaluation/0/dataset",
        "/thresholds/max_forget_upper_end",  # one image is too few for the default
    }
    assert all(words in said for words in ("'Horse' as 'horse'", "'zebra'", "its image is left out", "'cat'"))
    assert view.thresholds.max_forget_accuracy == 0.05
    session.expire_all()
    assert queries.get(session, tenant, view.id).warnings == view.warnings
    claim = lifecycle.claim(session, view.id, "worker", 60)
    assert claim is not None
    assert claim.spec.warnings == view.warnings
    assert (
        "warnings" not in session.get_one(Job, view.id).spec
    )  # the workers of the version before refuse what they do not know


def test_every_error_is_reported_at_once(errors: Callable[..., Any], clip: Path) -> None:
    request = requests.subgroup(clip, forget="ds_none", retain="ds_nothing", model={"id": "mdl_none"})
    assert set(errors(request)) == {"/model/id", "/data/forget", "/data/retain"}


def test_what_is_anothers_does_not_exist(
    session: Session, stranger: str, settings: Settings, clip: Path, upload: Callable[..., str]
) -> None:
    data = {"evaluation": [{"name": "own", "dataset": upload("horse", "dog")}]}
    with pytest.raises(InvalidRequest, match="there is no data set"):
        submission.submit(session, stranger, requests.names_only(clip, data=data), settings)


def test_a_reference_is_a_model_like_any_other(
    session: Session, tenant: str, stranger: str, settings: Settings, clip: Path, tmp_path: Path
) -> None:
    source = f"local-dir:{clip}"
    (clip / "gold").mkdir()
    registration = ModelRegistration(name="gold", model=ModelReference(source=f"{source}/gold"))
    asked = {"audit": {"reference": {"id": models.register(session, tenant, registration, settings).id}}}
    view = submission.submit(session, tenant, requests.names_only(clip, **asked), settings)
    reference = JobSpec.model_validate(session.get_one(Job, view.id).spec).reference
    assert reference is not None
    assert (reference.reference, reference.id) == (f"{source}/gold", asked["audit"]["reference"]["id"])
    with pytest.raises(InvalidRequest, match="there is no model") as caught:
        submission.submit(session, stranger, requests.names_only(clip, **asked), settings)
    assert [error.pointer for error in caught.value.errors] == ["/audit/reference/id"]


def test_a_model_is_no_reference_for_itself(errors: Callable[..., Any], clip: Path) -> None:
    found = errors(requests.names_only(clip, audit={"reference": {"source": f"local-dir:{clip}"}}))
    assert "model that is to be edited" in found["/audit/reference"]


@pytest.mark.parametrize("path", ["/etc", "inside/../../outside", "link"])
def test_paths_outside_of_the_roots(
    errors: Callable[..., Any], clip: Path, settings: Settings, tmp_path: Path, path: str
) -> None:
    settings.path_roots[:] = [clip]
    (clip / "link").symlink_to(tmp_path)
    found = errors(requests.names_only(clip, model={"source": f"local-dir:{clip / path}"}))
    assert "EFFACE_PATH_ROOTS" in found["/model/source"]
    data = {"evaluation": [{"name": "own", "dataset": str(clip / path)}]}
    assert "EFFACE_PATH_ROOTS" in errors(requests.names_only(clip, data=data))["/data/evaluation/0/dataset"]


@pytest.mark.parametrize("path", ["objects/tenants/t/jobs", "objects", "."])
def test_objects_of_the_storage_are_no_paths_even_below_a_root(
    errors: Callable[..., Any], clip: Path, settings: Settings, storage: Storage, tmp_path: Path, path: str
) -> None:
    storage.put("tenants/t/jobs/model/open_clip_config.json", b"{}")
    assert settings.path_roots == [tmp_path]
    found = errors(requests.names_only(clip, model={"source": f"local-dir:{tmp_path / path}"}))
    assert "EFFACE_PATH_ROOTS" in found["/model/source"]


@pytest.mark.parametrize(
    "model", [{"source": "hf-hub:laion/CLIP"}, {"architecture": "ViT-B-32", "pretrained": "openai"}], ids=str
)
def test_hubs_where_the_operator_allows_them(
    errors: Callable[..., Any],
    session: Session,
    tenant: str,
    settings: Settings,
    clip: Path,
    model: dict[str, str],
) -> None:
    (message,) = errors(requests.names_only(clip, model=model)).values()
    assert "EFFACE_ALLOW_HUB" in message
    allowed = settings.model_copy(update={"allow_hub": True})
    assert submission.submit(session, tenant, requests.names_only(clip, model=model), allowed).state == JobState.QUEUED


def test_unknown_kinds_of_models(errors: Callable[..., Any], clip: Path) -> None:
    assert "local-dir:" in errors(requests.names_only(clip, model={"source": "s3://models/clip"}))["/model/source"]
    file = clip / "file"
    file.touch()
    found = errors(requests.names_only(clip, model={"source": f"local-dir:{file}"}))
    assert "is not a folder" in found["/model/source"]


@pytest.mark.parametrize(
    ("forget", "retain", "pointer", "words"),
    [
        (["horse", "dog"], ["dog", "horse"], "/data/forget", "'dog', which is not to be forgotten"),
        (["horse"], ["horse", "fish"], "/data/retain", "'fish', which is not among target.labels"),
    ],
)
def test_classes_of_a_subgroup(
    errors: Callable[..., Any],
    clip: Path,
    upload: Callable[..., str],
    forget: list[str],
    retain: list[str],
    pointer: str,
    words: str,
) -> None:
    found = errors(requests.subgroup(clip, forget=upload(*forget), retain=upload(*retain)))
    assert list(found) == [pointer]
    assert words in found[pointer]


def test_a_single_folder_of_any_name_shows_the_subgroup(
    session: Session, tenant: str, settings: Settings, clip: Path, upload: Callable[..., str]
) -> None:
    request = requests.subgroup(clip, forget=upload("sketches"), retain=upload("horse", "dog"))
    assert submission.submit(session, tenant, request, settings).thresholds.max_forget_accuracy == 0.05


def test_without_labels_the_retain_set_must_tell_them(
    errors: Callable[..., Any], clip: Path, upload: Callable[..., str]
) -> None:
    target = {"type": "subgroup", "class": "horse", "subgroup": "sketch"}
    found = errors(requests.subgroup(clip, forget=upload("horse"), retain=upload("horse", images=3), target=target))
    assert "images of other classes" in found["/data/retain"]


def test_retained_images_of_a_class_target(errors: Callable[..., Any], clip: Path, upload: Callable[..., str]) -> None:
    data = {"forget": upload("horse"), "retain": upload("dog", "horse")}
    found = errors(requests.names_only(clip, method={"name": "three_stage"}, data=data))
    assert "'horse', which is to be forgotten" in found["/data/retain"]


@pytest.mark.parametrize(
    ("method", "roles", "pointer", "words"),
    [
        (
            "three_stage",
            {"forget": "a", "retain": "a"},
            "/data/retain",
            "data.forget, too: an image cannot be forgotten",
        ),
        ("synthetic", {"forget_test": "a", "retain_test": "a"}, "/data/retain_test", "cannot be forgotten and kept"),
        ("delete", {"forget": "a", "evaluation": "a"}, "/data/evaluation/0/dataset", "nothing of it would be left"),
        ("auto", {"forget": "a", "evaluation": "a"}, "/data/evaluation/0/dataset", "data.forget, too"),
        (
            "delete",
            {"forget": "a", "forget_test": "a"},
            "/data/forget_test",
            "a fifth of what is learnt from is held out",
        ),
        (
            "delete",
            {"forget": "a", "calibration": "a", "evaluation": "b"},
            "/data/calibration",
            "a part of data.forget",
        ),
        ("delete", {"forget": "a", "proxy": "a", "evaluation": "b"}, "/data/proxy", "would be distilled again"),
        ("delete", {"forget": "b", "retain_test": "a", "earlier": "a"}, "/data/earlier/0/dataset", "data.retain_test"),
        ("delete", {"forget": "a", "earlier": "a"}, "/data/earlier/0/dataset", "data.forget, too"),
    ],
)
@pytest.mark.parametrize("twice", [False, True])
def test_one_data_set_has_no_two_roles(
    errors: Callable[..., Any],
    clip: Path,
    upload: Callable[..., str],
    method: str,
    roles: dict[str, str],
    pointer: str,
    words: str,
    *,
    twice: bool,
) -> None:
    """By its id, or by its digest where it was uploaded twice."""
    images = {"a": ["horse"], "b": ["horse", "dog"]}
    ids = {name: upload(*classes) for name, classes in images.items()}
    given = {role: upload(*images[name]) if twice else ids[name] for role, name in roles.items()}
    lists = {r: [{"name": r, "dataset": given.pop(r)}] for r in ("evaluation", "earlier") if r in given}
    found = errors(requests.names_only(clip, method={"name": method}, data=given | lists))
    assert words in found[pointer]


def test_a_method_that_sees_no_image_may_be_measured_on_what_was_given(
    session: Session, tenant: str, settings: Settings, clip: Path, upload: Callable[..., str]
) -> None:
    images = upload("horse")
    data = {"forget": images, "evaluation": [{"name": "own", "dataset": images}]}
    assert submission.submit(session, tenant, requests.names_only(clip, data=data), settings).state == JobState.QUEUED


def test_a_broken_archive_on_the_server_is_found_now(errors: Callable[..., Any], clip: Path) -> None:
    (clip / "images.zip").write_bytes(b"PK\x03\x04 and nothing more")
    data = {"evaluation": [{"name": "own", "dataset": str(clip / "images.zip")}]}
    assert set(errors(requests.names_only(clip, data=data))) == {"/data/evaluation/0/dataset"}


def test_a_threshold_that_nothing_can_answer(errors: Callable[..., Any], clip: Path) -> None:
    found = errors(requests.names_only(clip, thresholds={"max_transfer_drop": 0.1}))
    assert set(found) == {"/thresholds/max_transfer_drop"}


def test_thresholds_on_measures_that_nothing_can_answer(errors: Callable[..., Any], clip: Path) -> None:
    wanted = [{"measure": name, "max": 0.6} for name in ("probe_recall", "worst_prompt_recall", "retrieval_recall_1")]
    found = errors(requests.names_only(clip, thresholds={"measures": wanted}))
    assert set(found) == {"/thresholds/measures/0/measure", "/thresholds/measures/2/measure"}
    assert "real images" in found["/thresholds/measures/0/measure"]
    assert "captions" in found["/thresholds/measures/2/measure"]


def test_bounds_that_so_few_images_cannot_meet(
    errors: Callable[..., Any], clip: Path, upload: Callable[..., str], tmp_path: Path
) -> None:
    """Uploaded sets are counted, and those at paths."""
    sets = [upload("horse", "dog"), str(requests.archive(clip / "more.zip", "horse", "dog", images=20))]
    data = {"evaluation": [{"name": f"set {number}", "dataset": dataset} for number, dataset in enumerate(sets)]}
    wanted = [{"measure": "forget_recall", "max": 0.1, "where": name} for name in ("set 0", "set 1")]
    thresholds = {"max_forget_upper_end": 0.2, "measures": wanted}
    found = errors(requests.names_only(clip, data=data, thresholds=thresholds))
    assert set(found) == {
        "/thresholds/max_forget_upper_end",
        "/thresholds/measures/0/max",
        "/thresholds/measures/1/max",
    }
    assert "needs 16 images" in found["/thresholds/max_forget_upper_end"]
    assert "with the 2 images of 'set 0'" in found["/thresholds/measures/0/max"]
    assert (
        "with the 20 images of 'set 1' the upper end cannot fall under 0.16; 35 are needed"
        in found["/thresholds/measures/1/max"]
    )


def test_a_default_that_so_few_images_cannot_meet_is_left_out_and_said(
    session: Session, tenant: str, settings: Settings, clip: Path, upload: Callable[..., str]
) -> None:
    data = {"evaluation": [{"name": "own", "dataset": upload("horse", "dog")}]}
    resolved = validation.resolve(session, tenant, requests.names_only(clip, data=data), settings)
    assert resolved.thresholds.max_forget_upper_end is None
    (note,) = [warning for warning in resolved.warnings if warning.pointer.startswith("/thresholds")]
    assert note.pointer == "/thresholds/max_forget_upper_end"
    assert "needs 16 images of what is forgotten, and 'own' has 2" in note.detail


def test_a_time_without_a_zone(errors: Callable[..., Any], clip: Path) -> None:
    assert set(errors(requests.names_only(clip, received_at="2026-11-02T09:00:00"))) == {"/received_at"}

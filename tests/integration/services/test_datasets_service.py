"""Data sets: kept as they came, with what was found in them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from services import datasets
from shared.errors import InvalidRequest, NotFound
from shared.settings import Settings
from shared.storage import Storage
from tests.support import requests


def test_an_archive_is_kept_as_it_came(
    session: Session, tenant: str, storage: Storage, upload: Callable[..., str], tmp_path: Path
) -> None:
    dataset = datasets.get(session, tenant, upload("horse", "dog"))
    content = (tmp_path / "upload.zip").read_bytes()
    assert storage.get(f"tenants/{tenant}/datasets/{dataset.id}") == content
    assert dataset.digest == hashlib.sha256(content).hexdigest()
    assert (dataset.format, dataset.images, dataset.classes) == ("zip", 2, {"dog": 1, "horse": 1})
    assert dataset.size_bytes == len(content)


def test_the_operators_limits_hold(settings: Settings, tmp_path: Path) -> None:
    path = requests.archive(tmp_path / "images.zip", "horse", images=3)
    assert datasets.inspect(path, settings).images == 3
    with pytest.raises(InvalidRequest):
        datasets.inspect(path, settings.model_copy(update={"max_image_pixels": 15}))


def test_data_sets_are_their_tenants_own(
    session: Session, tenant: str, stranger: str, upload: Callable[..., str]
) -> None:
    first, second = upload("horse"), upload("dog")
    assert [d.id for d in datasets.list_page(session, tenant).data] == [second, first]
    assert list(datasets.list_page(session, stranger).data) == []
    with pytest.raises(NotFound):
        datasets.get(session, stranger, first)

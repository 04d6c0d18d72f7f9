"""Data sets: sealed, and kept with what was found in them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.catalog import datasets
from shared.crypto.archive_encryption import Sealer
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.ports.object_storage import Storage
from shared.postgres.tables import Dataset
from shared.settings import Settings
from tests.support import requests


def test_an_archive_is_sealed_and_opens_with_its_own_key_alone(
    session: Session, tenant: str, settings: Settings, storage: Storage, upload: Callable[..., str], tmp_path: Path
) -> None:
    other = upload("cat")
    dataset = datasets.get(session, tenant, upload("horse", "dog"))
    content = (tmp_path / "upload.zip").read_bytes()
    sealed = storage.get(f"tenants/{tenant}/datasets/{dataset.id}")
    rows = {row.id: row for row in session.scalars(select(Dataset))}
    row = rows[dataset.id]
    assert row.data_key is not None and rows[other].data_key is not None
    assert content not in sealed and b"horse" not in sealed
    assert row.sealed_sha256 == hashlib.sha256(sealed).hexdigest()
    assert b"".join(Sealer.of(settings).unseal([sealed], row.data_key, row.id)) == content
    with pytest.raises(Unavailable):
        list(Sealer.of(settings).unseal([sealed], rows[other].data_key, row.id))
    assert dataset.digest == hashlib.sha256(content).hexdigest()
    assert (dataset.format, dataset.images, dataset.classes) == ("zip", 4, {"dog": 2, "horse": 2})
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

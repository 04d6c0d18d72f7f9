"""What a job keeps is encrypted, opens under its own name alone, and survives nothing that was changed."""

from pathlib import Path

import pytest
import torch

from shared.crypto.archive_encryption import SealBroken, Sealer
from shared.ports.object_storage import ObjectMissing, Storage
from worker.checkpoints import StoredTensors
from worker.vault import Vault


def key() -> bytes:
    sealer = Sealer(bytes(32))
    return sealer.opened(sealer.new_key("x"), "x")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'objects'}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"features of a person" * 1000)
    return path


def read(vault: Vault, name: str) -> bytes:
    with vault.opened(name) as path:
        return path.read_bytes()


def test_with_a_key_nothing_can_be_read_in_the_storage(storage: Storage, file: Path) -> None:
    vault = Vault(storage, key())
    vault.put("a/1", file)
    assert read(vault, "a/1") == file.read_bytes()
    assert b"person" not in storage.get("a/1")
    assert vault.names("a") == ["a/1"]


def test_without_one_it_lies_as_it_is(storage: Storage, file: Path) -> None:
    Vault(storage, None).put("a/1", file)
    assert storage.get("a/1") == file.read_bytes() == read(Vault(storage, None), "a/1")


def test_another_key_another_name_or_a_change_opens_nothing(storage: Storage, file: Path) -> None:
    own = key()
    vault = Vault(storage, own)
    vault.put("a/1", file)
    sealed = storage.get("a/1")
    storage.put("a/2", sealed)
    storage.put("a/3", sealed[:-1])
    storage.put("a/4", file)
    for name in ("a/2", "a/3", "a/4"):
        with pytest.raises(SealBroken):
            read(vault, name)
    with pytest.raises(SealBroken):
        read(Vault(storage, key()), "a/1")
    with pytest.raises(ObjectMissing):
        read(vault, "a/5")


def test_samples_that_cannot_be_read_are_made_again(storage: Storage) -> None:
    own = key()
    StoredTensors(Vault(storage, own), "jobs/j/cache").save("k", {"samples": torch.eye(3)})
    stored = StoredTensors(Vault(storage, own), "jobs/j/cache").load("k")
    assert stored is not None and torch.equal(stored["samples"], torch.eye(3))
    assert StoredTensors(Vault(storage, key()), "jobs/j/cache").load("k") is None
    assert StoredTensors(Vault(storage, own), "jobs/j/cache").load("other") is None
    (name,) = Vault(storage, own).names("jobs/j/cache")
    assert name == "jobs/j/cache/tensors/k.safetensors"
    storage.put(name, storage.get(name)[:100])
    assert StoredTensors(Vault(storage, own), "jobs/j/cache").load("k") is None

"""What is sealed opens with its own key, whole, or not at all."""

import base64
import os
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from shared.crypto.archive_encryption import SealBroken, Sealer
from shared.errors import Unavailable
from shared.settings import Settings

SEGMENT = 1024 * 1024
NAME = "ds_1"


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(os.urandom(32))


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, 3 * SEGMENT + 17])
def test_what_is_sealed_is_opened(sealer: Sealer, size: int) -> None:
    content, key = os.urandom(size), sealer.new_key(NAME)
    chunks = [content[at : at + 700_001] for at in range(0, size, 700_001)]
    sealed = list(sealer.seal(chunks, key, NAME))
    assert b"".join(sealer.unseal(sealed, key, NAME)) == content
    assert content[:64] not in b"".join(sealed) or size < 8


def test_the_same_bytes_are_never_sealed_alike(sealer: Sealer) -> None:
    key = sealer.new_key(NAME)
    assert b"".join(sealer.seal([b"x"], key, NAME)) != b"".join(sealer.seal([b"x"], key, NAME))
    assert sealer.new_key(NAME) != sealer.new_key(NAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"x",
        lambda sealed: sealed[:SEGMENT],
        lambda sealed: sealed[:5000] + bytes([sealed[5000] ^ 1]) + sealed[5001:],
        lambda sealed: sealed[:SEGMENT] + sealed[2 * SEGMENT : 3 * SEGMENT] + sealed[SEGMENT : 2 * SEGMENT],
        lambda sealed: b"",
    ],
    ids=["shorter", "longer", "cut at a segment", "a bit", "segments exchanged", "empty"],
)
def test_a_change_is_noticed(sealer: Sealer, change) -> None:
    key = sealer.new_key(NAME)
    sealed = b"".join(sealer.seal([os.urandom(3 * SEGMENT)], key, NAME))
    with pytest.raises(SealBroken, match=NAME):
        list(sealer.unseal([change(sealed)], key, NAME))


def test_a_key_belongs_to_one_data_set(sealer: Sealer) -> None:
    key = sealer.new_key(NAME)
    sealed = list(sealer.seal([b"x"], key, NAME))
    with pytest.raises(Unavailable, match="EFFACE_MASTER_KEY"):
        list(sealer.unseal(sealed, key, "ds_2"))
    with pytest.raises(SealBroken):
        list(sealer.unseal(sealed, sealer.new_key(NAME), NAME))


def test_an_older_master_key_still_opens_and_a_new_one_seals() -> None:
    old, new = os.urandom(32), os.urandom(32)
    key = Sealer(old).new_key(NAME)
    sealed = list(Sealer(old).seal([b"x"], key, NAME))
    assert list(Sealer(new, old).unseal(sealed, key, NAME)) == [b"x"]
    rewrapped = Sealer(new, old).rewrapped(key, NAME)
    assert list(Sealer(new).unseal(sealed, rewrapped, NAME)) == [b"x"]
    with pytest.raises(Unavailable):
        list(Sealer(new).unseal(sealed, key, NAME))


def test_a_storage_that_fails_is_no_broken_seal(sealer: Sealer) -> None:
    key = sealer.new_key(NAME)
    sealed = b"".join(sealer.seal([os.urandom(2 * SEGMENT)], key, NAME))

    def breaking() -> Iterator[bytes]:
        yield sealed[:SEGMENT]
        raise Unavailable("The object storage does not answer.")

    with pytest.raises(Unavailable, match="does not answer"):
        list(sealer.unseal(breaking(), key, NAME))


@pytest.mark.parametrize("text", [None, "", "short", "not base64!", base64.b64encode(bytes(31)).decode()])
def test_a_master_key_that_is_none_is_named(text: str | None) -> None:
    settings = Settings(_env_file=None, master_key=None if text is None else SecretStr(text))
    with pytest.raises(Unavailable, match="EFFACE_MASTER_KEY"):
        Sealer.of(settings)

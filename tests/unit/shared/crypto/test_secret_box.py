"""Secrets at rest."""

import base64

import pytest
from pydantic import SecretStr

from shared.crypto.secret_box import SecretBox
from shared.errors import Unavailable
from shared.settings import Settings

OLD, NEW = bytes(32), bytes(range(32))


def settings(master_key):
    return Settings(_env_file=None, master_key=None if master_key is None else SecretStr(master_key))


def test_what_is_sealed_opens_for_its_name_alone():
    box = SecretBox(NEW)
    sealed = box.seal(b"secret", "whk_1")

    assert b"secret" not in sealed
    assert box.open(sealed, "whk_1") == b"secret"
    for other_box, name in ((box, "whk_2"), (SecretBox(OLD), "whk_1")):
        with pytest.raises(Unavailable, match=name):
            other_box.open(sealed, name)


def test_older_master_keys_still_open():
    keys = ",".join(base64.b64encode(key).decode() for key in (NEW, OLD))
    box = SecretBox.of(settings(keys))

    assert box.open(SecretBox(OLD).seal(b"old", "n"), "n") == b"old"
    assert SecretBox(NEW).open(box.seal(b"new", "n"), "n") == b"new"


@pytest.mark.parametrize("master_key", [None, "", "short", "not base64!", base64.b64encode(bytes(31)).decode()])
def test_what_is_no_master_key_is_said_plainly(master_key):
    with pytest.raises(Unavailable, match="EFFACE_MASTER_KEY"):
        SecretBox.of(settings(master_key))

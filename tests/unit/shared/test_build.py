"""The digest of the code can be computed without our code."""

import subprocess

import pytest

from shared.build import PACKAGES, code_digest, this_build
from shared.settings import Settings

COMMAND = f"find {' '.join(PACKAGES)} -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"


@pytest.fixture
def root(tmp_path):
    """A folder with packages in it."""
    for name in PACKAGES:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "inner" / "module.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "api" / "inner-old.py").write_text("# sorts before inner/ by bytes\n")
    return tmp_path


def test_coreutils_find_the_same(root):
    listed = subprocess.run(COMMAND, shell=True, cwd=root, capture_output=True, text=True, check=True).stdout

    assert code_digest(root) == listed.split()[0]


def test_a_changed_or_renamed_file_changes_it_and_bytecode_does_not(root):
    before = code_digest(root)
    (root / "api" / "__init__.pyc").write_bytes(b"bytecode")
    (root / "unrelated.py").write_text("")
    assert code_digest(root) == before

    (root / "worker" / "inner" / "module.py").rename(root / "worker" / "inner" / "other.py")
    renamed = code_digest(root)
    (root / "worker" / "inner" / "other.py").write_text("NAME = 'x'\n")
    assert len({before, renamed, code_digest(root)}) == 3


def test_this_build_is_told():
    build = this_build()

    assert len(build.code) == 64
    assert build.version[0].isdigit()


@pytest.mark.parametrize(("value", "digest"), [("", None), ("sha256:12", "sha256:12")])
def test_an_empty_image_digest_is_none(monkeypatch, value, digest):
    monkeypatch.setenv("EFFACE_IMAGE_DIGEST", value)

    assert Settings(_env_file=None).image_digest == digest

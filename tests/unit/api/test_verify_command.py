"""`efface verify`: exit codes, one line each, and what it does not need."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli import main
from api.cli.certificates import VerifyCode
from services.certificates.verification import Outcome
from shared.crypto.public_keys import jwk_set, public_pem
from shared.settings import get_settings
from tests.support.certificates import EXTERNAL_ID, PAGE, WEIGHTS, certificate, key_folder, report_bytes

SCRIPT = """
import sys
from api.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "sqlalchemy", "psycopg", "celery", "fastapi", "httpx") if name in sys.modules])
"""


HOLD = (Outcome.VALID, Outcome.VERDICT_FAILED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with keys, a good certificate, and what it is about."""
    keys = key_folder(tmp_path / "signing")
    files = {
        "certificate.json": certificate(keys),
        "failed.json": certificate(keys, verdict="failed"),
        "key.pem": public_pem(keys.signer().public_key),
        "keys.json": json.dumps(jwk_set(keys.public_keys())).encode(),
        "subject.txt": keys.subject_key("tests").key.hex().encode() + b"\n",
        "report.json": report_bytes(),
        "report.html": PAGE,
        "model/open_clip_model.safetensors": WEIGHTS,
        "other": b"other bytes",
        "stranger.json": certificate(key_folder(tmp_path / "stranger")),
        "empty.json": b"{}",
    }
    (tmp_path / "model").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def efface(folder, monkeypatch, capsys):
    """Runs a command in this process, in the folder (or in one below it) and with the keys there."""

    def run(*arguments: str, place: str = ".") -> Done:
        monkeypatch.chdir(folder / place)
        monkeypatch.setenv("EFFACE_SIGNING_DIR", str(folder / place / "signing"))
        monkeypatch.setattr(sys, "argv", ["efface", *arguments])
        get_settings.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    get_settings.cache_clear()


def test_every_outcome_has_a_code_of_its_own():
    assert {code.name for code in VerifyCode} == {outcome.name for outcome in Outcome}
    assert {code.value for code in VerifyCode} & {1, 2} == set()  # these say that nothing was found out


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["certificate.json"], Outcome.VALID),
        (["certificate.json", "--key", "key.pem", "--weights", "model", "--report", "report.json"], Outcome.VALID),
        (["certificate.json", "--key", "keys.json", "--weights", "model/open_clip_model.safetensors"], Outcome.VALID),
        (["certificate.json", "--external-id", EXTERNAL_ID, "--subject-key", "subject.txt"], Outcome.VALID),
        (["certificate.json", "--report-page", "report.html"], Outcome.VALID),
        (["certificate.json", "--report-page", "other"], Outcome.WRONG_PAGE),
        (["failed.json"], Outcome.VERDICT_FAILED),
        (["empty.json"], Outcome.NOT_A_CERTIFICATE),
        (["stranger.json"], Outcome.UNKNOWN_KEY),
        (["certificate.json", "--weights", "other"], Outcome.WRONG_WEIGHTS),
        (["certificate.json", "--report", "other"], Outcome.WRONG_REPORT),
        (["certificate.json", "--external-id", "DSR-1", "--subject-key", "subject.txt"], Outcome.WRONG_SUBJECT),
    ],
)
def test_what_it_finds_is_one_line_and_a_code(efface, arguments, outcome):
    done = efface("verify", *arguments)

    said, silent = (done.out, done.err) if outcome in HOLD else (done.err, done.out)
    assert (done.code, silent) == (VerifyCode[outcome.name], "")
    assert len(said.splitlines()) == 1
    assert said.startswith(f"{outcome}: ")


def test_it_needs_no_torch_no_database_and_no_network(folder):
    variables = {"EFFACE_SIGNING_DIR": str(folder / "signing"), "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        "verify",
        "certificate.json",
        "--weights",
        "model",
        "--report",
        "report.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | variables, timeout=60)

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.json"], "does not exist"),
        (["certificate.json", "--key", "other"], "neither PEM nor a JSON Web Key Set"),
        (["certificate.json", "--key", "key.pem", "--keys-url", "http://127.0.0.1:1"], "one of the two"),
        (["certificate.json", "--external-id", "x"], "go together"),
        (["certificate.json", "--external-id", "x", "--subject-key", "other"], "no key in hexadecimal"),
    ],
)
def test_wrong_usage_exits_2(efface, arguments, words):
    done = efface("verify", *arguments)

    assert done.code == 2
    assert words in " ".join(done.err.replace("│", " ").split())


def test_a_machine_without_keys_asks_for_one(efface, folder):
    (folder / "signing" / "public").rename(folder / "elsewhere")

    done = efface("verify", "certificate.json")

    assert (done.code, "--key" in done.err) == (2, True)


def test_what_cannot_be_found_out_exits_1(efface):
    done = efface("verify", "certificate.json", "--keys-url", "http://127.0.0.1:1/keys")

    assert (done.code, "cannot be fetched" in done.err) == (1, True)


def test_keys_are_made_listed_rotated_and_exported(efface, folder):
    (folder / "fresh").mkdir()

    def signing(*arguments: str) -> Done:
        return efface("keys", "signing", *arguments, place="fresh")

    created = signing("create").out.split()[0]
    again = signing("create")
    rotated = signing("rotate").out.split()[0]

    assert (again.code, "rotate" in again.err) == (1, True)
    rows = [line.split() for line in signing("list").out.splitlines()]
    assert rows[1:] == [[created, "verifies"], [rotated, "signs"]]
    assert [key["kid"] for key in json.loads(signing("export").out)["keys"]] == [created, rotated]
    refused = signing("revoke", rotated)
    assert (refused.code, "rotate" in refused.err) == (1, True)


def test_the_key_of_a_tenants_subjects_is_printed(efface, folder):
    assert efface("keys", "signing", "subject", "tests").out == (folder / "subject.txt").read_text()

"""The audit log: what is in it, that nobody changes it, and that whoever does is found out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from services import processing_record
from services.access import api_keys
from services.audit_log import chain, signed_heads
from services.audit_log import entries as audit_log
from services.audit_log.entries import ACTOR
from services.jobs import lifecycle, submission
from shared.errors import Unavailable
from shared.ports.object_storage import Storage
from shared.postgres.database import Database
from shared.postgres.tables import AuditEntry, AuditHead, AuditLink, AuditUnlinked
from shared.schemas.job import JobError
from shared.settings import Settings
from shared.states import Scope, Stage
from tests.support import requests
from tests.support.parts import APPEND_ONLY
from tests.support.world import World, passed


def write(database: Database, count: int = 1) -> None:
    for number in range(count):
        with database.transaction() as session:
            audit_log.write(session, "key.created", f"key_{number}", tenant_id=None, detail={"n": "ü"})


def link(database: Database) -> int:
    with database.transaction() as session:
        return chain.extend(session)


def findings(database: Database) -> tuple[str, ...]:
    with database.transaction() as session:
        return chain.verify(session).findings


def tamper(database: Database, *statements: str) -> None:
    """Do what only a superuser can: switch the database's refusal off."""
    with database.transaction() as session:
        for table in APPEND_ONLY:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        for statement in statements:
            session.execute(text(statement))
        for table in APPEND_ONLY:
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER ALL"))
            for name in ("rows", "truncate"):
                session.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}"))


@pytest.fixture
def log(database: Database) -> Database:
    """Five entries in the chain."""
    write(database, 5)
    assert link(database) == 5
    assert findings(database) == ()
    return database


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET {} = {}",
        "DELETE FROM {}",
        "TRUNCATE {} CASCADE",
        "SET session_replication_role = replica; DELETE FROM {}",
    ],
)
def test_the_database_refuses(log: Database, settings: Settings, tmp_path: Path, table: str, statement: str) -> None:
    sign(log, tmp_path)
    column = "action" if table == "audit_log" else "seq"
    with pytest.raises(ProgrammingError, match="append-only"), log.transaction() as session:
        session.execute(text(statement.format(table, column, column)))


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["UPDATE audit_log SET action = 'key.revoked' WHERE id = 3"], "seq 3: entry 3 or its place was changed"),
        (["UPDATE audit_log SET detail = '{}' WHERE id = 3"], "seq 3: entry 3 or its place was changed"),
        (["UPDATE audit_log SET created_at = created_at + interval '1 us' WHERE id = 1"], "seq 1: entry 1"),
        (["DELETE FROM audit_log WHERE id = 3"], "seq 3: its entry 3 was deleted"),
        (["DELETE FROM audit_chain WHERE seq = 3"], "seq 3 to 3: missing from the chain"),
        (["DELETE FROM audit_chain WHERE seq = 5"], "entry 5: was taken out of the chain"),
        (
            [
                "UPDATE audit_chain SET entry_id = 99 WHERE seq = 2",
                "UPDATE audit_chain SET entry_id = 2 WHERE seq = 3",
                "UPDATE audit_chain SET entry_id = 3 WHERE seq = 2",
            ],
            "seq 2: entry 3 or its place was changed",
        ),
    ],
)
def test_whoever_changes_it_all_the_same_is_found_out(log: Database, statements: list[str], found: str) -> None:
    tamper(log, *statements)
    assert findings(log)[0].startswith(found)


def test_an_entry_that_never_got_its_place_is_found(database: Database) -> None:
    write(database, 2)
    with database.transaction() as session:
        assert chain.verify(session).waiting == 2
        session.execute(text("DELETE FROM audit_unlinked WHERE entry_id = 1"))
    assert findings(database) == ("entry 1: was taken out of the chain",)


def test_the_chain_is_right_under_concurrent_writers(database: Database) -> None:
    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, database, 20) for _ in range(4)]
        linkers = [pool.submit(lambda: [link(database) for _ in range(10)]) for _ in range(2)]
        for done in (*writers, *linkers):
            done.result()
    while link(database):
        pass
    with database.transaction() as session:
        found = chain.verify(session)
        assert (found.findings, found.waiting, found.last.seq) == ((), 0, 80)
        assert session.scalars(select(AuditLink.seq).order_by(AuditLink.seq)).all() == list(range(1, 81))


def test_what_is_rolled_back_was_never_written(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction() as session:
        audit_log.write(session, "key.created", "key_1", tenant_id=None)
        raise RuntimeError
    write(database)
    link(database)
    assert findings(database) == ()
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(AuditUnlinked)) == 0


class TestRowsWithoutAnEntry:
    """What was taken out before a head knew of it: the log has no trace, but the rows have."""

    def test_what_was_deleted_before_it_was_linked(
        self, log: Database, submit: Callable[..., str], upload: Callable[..., str]
    ) -> None:
        job, dataset = submit(), upload("horse")
        with log.transaction() as session:
            key, _ = api_keys.create(session, tenant="tests", name="stolen", scopes=[Scope.ADMIN])
            key_id = key.id
        assert findings(log) == ()
        tamper(
            log,
            "DELETE FROM audit_unlinked",
            "DELETE FROM audit_log WHERE id > 5",
        )
        link(log)
        assert set(findings(log)) >= {
            f"job {job}: the log has no entry 'job.submitted' of it",
            f"key {key_id}: the log has no entry 'key.created' of it",
            f"data set {dataset}: the log has no entry 'dataset.uploaded' of it",
        }

    def test_an_empty_log_beside_rows(self, database: Database, submit: Callable[..., str]) -> None:
        job = submit()
        tamper(database, "DELETE FROM audit_unlinked", "DELETE FROM audit_log")
        assert f"job {job}: the log has no entry 'job.submitted' of it" in findings(database)

    def test_numbers_that_nobody_has_are_counted_and_prove_nothing(self, log: Database) -> None:
        with log.transaction() as session:
            before = chain.verify(session).unused_ids
        with pytest.raises(RuntimeError), log.transaction() as session:
            audit_log.write(session, "key.created", "key_x", tenant_id=None)
            raise RuntimeError
        write(log)
        link(log)
        with log.transaction() as session:
            found = chain.verify(session)
        assert (found.findings, found.unused_ids) == ((), before + 1)


def sign(database: Database, folder: Path, name: str = "key.pem"):
    path = folder / name
    if not path.exists():
        path.write_text(signed_heads.new_key())
    with database.transaction() as session:
        return signed_heads.sign(session, signed_heads.private_key(path))


def keyed(settings: Settings, folder: Path) -> Settings:
    """Settings with an audit key."""
    (folder / "key.pem").write_text(signed_heads.new_key())
    return settings.model_copy(update={"audit_key_file": folder / "key.pem"})


def check(database: Database, folder: Path, *heads, names: tuple[str, ...] = ("key.pem",)) -> list[str]:
    public = [signed_heads.private_key(folder / name).public_key() for name in names]
    with database.transaction() as session:
        return signed_heads.check(session, public, heads)


class TestHeads:
    def test_a_head_fits_the_log_that_it_was_signed_for(self, log: Database, tmp_path: Path) -> None:
        head = sign(log, tmp_path)
        write(log)
        link(log)
        assert check(log, tmp_path, head) == []

    def test_a_log_that_was_cut_off_is_shorter_than_its_head(self, log: Database, tmp_path: Path) -> None:
        head = sign(log, tmp_path)
        cut = ["DELETE FROM audit_heads", "DELETE FROM audit_chain WHERE seq > 3", "DELETE FROM audit_log WHERE id > 3"]
        tamper(log, *cut)
        assert findings(log) == ()  # the chain alone cannot tell
        none, cut_off = check(log, tmp_path, head)
        assert "no signed head" in none
        assert "its end was cut off" in cut_off

    def test_a_log_that_was_written_anew_has_another_hash(self, log: Database, tmp_path: Path) -> None:
        head = sign(log, tmp_path)
        tamper(log, *(f"DELETE FROM {table}" for table in ("audit_heads", "audit_chain", "audit_log")))
        write(log, 5)
        link(log)
        assert findings(log) == ()
        none, anew = check(log, tmp_path, head)
        assert "no signed head" in none
        assert "written anew" in anew

    def test_a_forged_head_has_a_wrong_signature(self, log: Database, tmp_path: Path) -> None:
        head = sign(log, tmp_path)
        statement = head.statement.model_copy(update={"seq": 4})
        (finding,) = check(log, tmp_path, head.model_copy(update={"statement": statement}))
        assert "signature is wrong" in finding

    def test_a_head_of_an_unknown_key_proves_nothing(self, log: Database, tmp_path: Path) -> None:
        sign(log, tmp_path)
        (tmp_path / "other.pem").write_text(signed_heads.new_key())
        (finding,) = check(log, tmp_path, names=("other.pem",))
        assert "was not given" in finding
        assert check(log, tmp_path, names=("other.pem", "key.pem")) == []

    def test_the_head_in_the_storage_is_not_replaced_by_one_of_a_shorter_log(
        self, log: Database, storage: Storage, settings: Settings, tmp_path: Path
    ) -> None:
        with_key = keyed(settings, tmp_path)
        signed_heads.Keeper(log, storage, with_key).round()
        first = signed_heads.read_stored(storage)
        assert first is not None and first.statement.seq == 5
        cut = ["DELETE FROM audit_heads", "DELETE FROM audit_chain WHERE seq > 3", "DELETE FROM audit_log WHERE id > 3"]
        tamper(log, *cut)
        signed_heads.Keeper(log, storage, with_key).round()
        assert signed_heads.read_stored(storage) == first
        (finding,) = check(log, tmp_path, first)
        assert "cut off" in finding

    def test_every_batch_is_signed_in_its_transaction(
        self, log: Database, storage: Storage, settings: Settings, tmp_path: Path
    ) -> None:
        keeper = signed_heads.Keeper(log, storage, keyed(settings, tmp_path))
        for seq in (6, 7, 8):
            write(log)
            assert keeper.round() == 1
            stored = signed_heads.read_stored(storage)
            assert stored is not None and stored.statement.seq == seq
        assert keeper.round() == 0
        assert check(log, tmp_path, stored) == []
        with log.transaction() as session:
            assert session.scalars(select(AuditHead.seq).order_by(AuditHead.seq)).all() == [6, 7, 8]

    def test_what_is_cut_off_after_its_batch_is_found_with_the_head_in_the_storage(
        self, log: Database, storage: Storage, settings: Settings, tmp_path: Path
    ) -> None:
        write(log)
        signed_heads.Keeper(log, storage, keyed(settings, tmp_path)).round()
        cut = ["DELETE FROM audit_heads", "DELETE FROM audit_chain WHERE seq = 6", "DELETE FROM audit_log WHERE id = 6"]
        tamper(log, *cut)
        assert any("cut off" in finding for finding in check(log, tmp_path, signed_heads.read_stored(storage)))

    def test_an_empty_log_is_signed_too(
        self, database: Database, storage: Storage, settings: Settings, tmp_path: Path
    ) -> None:
        assert signed_heads.Keeper(database, storage, keyed(settings, tmp_path)).round() == 0
        assert check(database, tmp_path) == []

    def test_a_head_that_could_not_be_stored_is_stored_by_the_next_round(
        self, log: Database, settings: Settings, tmp_path: Path
    ) -> None:
        """Also where the log has not grown since."""
        storage = Storage(f"file://{tmp_path}/elsewhere")
        (tmp_path / "elsewhere" / "audit").write_text("a file where the folder should be")
        keeper = signed_heads.Keeper(log, storage, keyed(settings, tmp_path))
        with pytest.raises(Unavailable):
            keeper.round()
        (tmp_path / "elsewhere" / "audit").unlink()
        assert keeper.round() == 0
        stored = signed_heads.read_stored(storage)
        assert stored is not None and stored.statement.seq == 5

    def test_without_its_key_file_entries_are_linked_and_the_relay_says_so(
        self, database: Database, storage: Storage, settings: Settings, tmp_path: Path
    ) -> None:
        write(database)
        keeper = signed_heads.Keeper(database, storage, settings.model_copy(update={"audit_key_file": tmp_path / "no"}))
        with pytest.raises(Unavailable, match="EFFACE_AUDIT_KEY_FILE"):
            keeper.round()
        assert link(database) == 0
        assert findings(database) == ()

    def test_openssl_agrees(self, log: Database, tmp_path: Path) -> None:
        import base64
        import subprocess

        import rfc8785

        head = sign(log, tmp_path)
        (tmp_path / "statement").write_bytes(rfc8785.dumps(head.statement.model_dump(mode="json")))
        (tmp_path / "signature").write_bytes(base64.b64decode(head.signature))
        (tmp_path / "public.pem").write_text(signed_heads.public_pem(signed_heads.private_key(tmp_path / "key.pem")))
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "statement"]
        done = subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestWhatIsWritten:
    @pytest.fixture
    def world(self, database: Database, tenant: str, submit: Callable[..., str]) -> World:
        return World(database, tenant, submit(external_id="Jane Doe", metadata={"subject": "jane@example.org"}))

    def entries(self, database: Database, subject: str | None = None) -> list[tuple[str, str, dict[str, object]]]:
        with database.transaction() as session:
            rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            return [(r.action, r.actor, r.detail) for r in rows if subject in (None, r.subject)]

    def test_the_life_of_a_job_without_its_steps(self, world: World) -> None:
        world.claim()
        world.do(lifecycle.enter_stage, 1, Stage.FORGETTING)
        world.do(lifecycle.record_steps, 1, [lifecycle.Step(Stage.FORGETTING, 1, {"loss": 1.0})], 0.5)
        world.do(lifecycle.complete, 1, passed(world, 1))
        result = world.view().result_model
        assert self.entries(world.database, world.job) == [
            ("job.submitted", "service", {}),
            ("job.started", "service", {"attempt": "1"}),
            ("job.succeeded", "service", {"result_model": result}),
        ]

    def test_no_personal_data(self, world: World) -> None:
        world.claim()
        world.do(lifecycle.fail, 1, JobError(code="invalid_dataset", message="jane.jpg is broken"))
        assert self.entries(world.database, world.job)[-1] == ("job.failed", "service", {"code": "invalid_dataset"})
        assert "jane" not in str(self.entries(world.database)).lower()

    def test_the_actor_is_the_key_of_the_request(
        self, database: Database, tenant: str, settings: Settings, clip: Path
    ) -> None:
        with database.transaction() as session:
            session.info[ACTOR] = "key_1"
            submission.submit(session, tenant, requests.names_only(clip), settings)
        assert self.entries(database)[-1][:2] == ("job.submitted", "key_1")

    def test_a_request_that_is_only_checked_leaves_no_trace(
        self, database: Database, tenant: str, settings: Settings, clip: Path
    ) -> None:
        before = self.entries(database)
        with database.transaction() as session:
            submission.validated(session, tenant, requests.names_only(clip), settings)
        assert self.entries(database) == before

    def test_keys_are_made_and_revoked_once(self, database: Database) -> None:
        with database.transaction() as session:
            key, plaintext = api_keys.create(session, tenant="tests", name="Jane Doe", scopes=[Scope.ADMIN])
            api_keys.revoke(session, key.id)
            api_keys.revoke(session, key.id)
        written = self.entries(database, key.id)
        assert [(action, detail) for action, _, detail in written] == [
            ("key.created", {"scopes": "admin"}),
            ("key.revoked", {}),
        ]
        assert plaintext not in str(written)

    def test_uploads(self, database: Database, upload: Callable[..., str]) -> None:
        ((action, _, detail),) = self.entries(database, upload("horse"))
        assert (action, detail["images"]) == ("dataset.uploaded", 2)


def test_the_record_of_processing_names_controllers_and_what_is_missing(
    session: Session, settings: Settings, submit: Callable[..., str], upload: Callable[..., str], stranger: str
) -> None:
    submit(), upload("horse")
    record = processing_record.record(session, settings.model_copy(update={"processor_name": "Forget Ltd"}))
    by_name = {controller.name: controller for controller in record.controllers}
    assert (by_name["tests"].jobs, by_name["tests"].data_sets_held) == ({"queued": 1}, 1)
    assert [len(by_name[name].categories) for name in ("tests", "others")] == [2, 0]
    assert (record.processor.name, record.missing) == ("Forget Ltd", ("EFFACE_PROCESSOR_CONTACT",))
    assert record.retention.other_data_sets_hours == 24 * settings.dataset_retention_days

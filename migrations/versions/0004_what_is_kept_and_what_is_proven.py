"""What is kept, what is purged, and the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)
DATASET_COLUMNS = (
    ("data_key", sa.LargeBinary()),
    ("sealed_sha256", sa.Text()),
    ("purge_after_job", sa.Boolean()),
    ("purging_at", TIME),
    ("purge_reason", sa.Text()),
)
APPEND_ONLY = ("audit_log", "audit_chain", "audit_heads")


def upgrade() -> None:
    """Apply."""
    for name, kind in DATASET_COLUMNS:
        op.add_column("datasets", sa.Column(name, kind, nullable=True))
    _create_purges()
    _link_jobs_in_flight()
    _create_register()
    _create_audit_log()
    _refuse_changes()


def downgrade() -> None:
    """Take back."""
    for table in (
        *("audit_heads", "audit_chain", "audit_unlinked", "audit_log"),
        *("weight_fetches", "dataset_purges", "job_purges", "job_datasets"),
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION efface_refuse_change()")
    for name, _ in reversed(DATASET_COLUMNS):
        op.drop_column("datasets", name)


def _create_purges() -> None:
    op.create_table(
        "job_datasets",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("purged", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_datasets_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "dataset_id", name=op.f("pk_job_datasets")),
    )
    op.create_index(op.f("ix_job_datasets_dataset_id"), "job_datasets", ["dataset_id"])
    op.create_table(
        "job_purges",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("objects", JSON, nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("verified_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_purges_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_purges")),
    )
    op.create_table(
        "dataset_purges",
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("objects", JSON, nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("key_destroyed_at", TIME, nullable=True),
        sa.Column("verified_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_dataset_purges")),
    )
    op.create_index(op.f("ix_dataset_purges_tenant_id"), "dataset_purges", ["tenant_id"])


def _link_jobs_in_flight() -> None:
    """Say which data sets the jobs of before use, so that none of them is purged under a job."""
    op.execute(
        """
        INSERT INTO job_datasets (job_id, dataset_id, purged)
        SELECT DISTINCT jobs.id, used.id #>> '{}',
               coalesce(used.id IN (
                   jobs.spec #> '{data,forget,id}', jobs.spec #> '{data,forget_test,id}'
               ), false)
        FROM jobs, jsonb_path_query(jobs.spec -> 'data', 'strict $.**.id') AS used (id)
        WHERE jsonb_typeof(used.id) = 'string'
        """
    )


def _create_register() -> None:
    op.create_table(
        "weight_fetches",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("first_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_weight_fetches_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "key_id", name=op.f("pk_weight_fetches")),
    )


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "audit_unlinked",
        sa.Column("entry_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_audit_unlinked")),
    )
    op.create_table(
        "audit_chain",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["audit_log.id"], name=op.f("fk_audit_chain_entry_id_audit_log")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_chain")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_audit_chain_entry_id")),
    )
    op.create_table(
        "audit_heads",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("statement", JSON, nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_heads")),
    )


def _refuse_changes() -> None:
    """Let the database itself refuse. ALWAYS: also where a session has switched ordinary
    triggers off.
    """
    op.execute(
        """
        CREATE FUNCTION efface_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% of % is refused: it is append-only', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    for table in APPEND_ONLY:
        for name, when in (("rows", "UPDATE OR DELETE"), ("truncate", "TRUNCATE")):
            each = "ROW" if name == "rows" else "STATEMENT"
            op.execute(
                f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} "
                f"FOR EACH {each} EXECUTE FUNCTION efface_refuse_change()"
            )
            op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}")

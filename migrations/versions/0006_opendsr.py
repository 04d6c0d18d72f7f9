"""OpenDSR: data subject requests, and webhooks that are told of one job in a manner of their
own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "webhooks", sa.Column("kind", sa.Text(), server_default="standard", nullable=False)
    )
    op.add_column("webhooks", sa.Column("job_id", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_webhooks_job_id_jobs"), "webhooks", "jobs", ["job_id"], ["id"])
    op.create_index("ix_webhooks_tenant_job", "webhooks", ["tenant_id", "job_id"])
    op.create_table(
        "opendsr_requests",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("subject_request_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("regulation", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_opendsr_requests_tenant_id_tenants")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_opendsr_requests_job_id_jobs")
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "subject_request_id", name=op.f("pk_opendsr_requests")
        ),
    )
    op.create_index(op.f("ix_opendsr_requests_job_id"), "opendsr_requests", ["job_id"])


def downgrade() -> None:
    """Take back. Call-backs of single jobs go with it: without their column they would be told
    of every job.
    """
    op.drop_table("opendsr_requests")
    op.execute("DELETE FROM webhooks WHERE kind <> 'standard'")
    op.drop_index("ix_webhooks_tenant_job", table_name="webhooks")
    op.drop_constraint(op.f("fk_webhooks_job_id_jobs"), "webhooks", type_="foreignkey")
    op.drop_column("webhooks", "job_id")
    op.drop_column("webhooks", "kind")

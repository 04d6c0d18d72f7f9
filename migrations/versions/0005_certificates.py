"""Certificates: which jobs are owed one, and the public keys under which they were signed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

UNCERTIFIED = sa.text("verdict IS NOT NULL AND certified_at IS NULL")


def upgrade() -> None:
    """Apply. Jobs that ended before are owed a certificate, too: everything that it is made from
    was kept.
    """
    op.add_column("jobs", sa.Column("certified_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_jobs_uncertified", "jobs", ["finished_at"], unique=False, postgresql_where=UNCERTIFIED
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )


def downgrade() -> None:
    """Take back. Certificates that were handed out stay valid for whoever has kept the public
    keys.
    """
    op.drop_table("signing_keys")
    op.drop_index("ix_jobs_uncertified", table_name="jobs", postgresql_where=UNCERTIFIED)
    op.drop_column("jobs", "certified_at")

"""Uploads that are on their way to the storage: what dies between object and row is found and
deleted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "unfinished_uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_unfinished_uploads_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unfinished_uploads")),
    )
    op.create_index(op.f("ix_unfinished_uploads_tenant_id"), "unfinished_uploads", ["tenant_id"])


def downgrade() -> None:
    """Take back. What was under way is then found by the listing of the storage alone."""
    op.drop_index(op.f("ix_unfinished_uploads_tenant_id"), table_name="unfinished_uploads")
    op.drop_table("unfinished_uploads")

"""Models that were deleted, files of jobs that were removed, keys of what jobs keep, the form of
stored documents.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply. Columns are nullable or have a default: code of the version before goes on."""
    op.add_column("models", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "model_purges",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=True),
        sa.Column("objects", postgresql.JSONB(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_model_purges")),
    )
    op.create_index(op.f("ix_model_purges_tenant_id"), "model_purges", ["tenant_id"])
    op.add_column("artifacts", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("artifacts", sa.Column("removal_reason", sa.Text(), nullable=True))
    empty = sa.text("'[]'::jsonb")
    op.add_column(
        "jobs", sa.Column("removals", postgresql.JSONB(), server_default=empty, nullable=False)
    )
    op.add_column(
        "jobs",
        sa.Column("document_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
    )
    op.add_column("jobs", sa.Column("data_key", sa.LargeBinary(), nullable=True))
    op.add_column("jobs", sa.Column("key_destroyed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take back. Deleted models have no files any more; they are listed again, and jobs that use
    them fail.
    """
    for column in ("key_destroyed_at", "data_key", "document_version", "removals"):
        op.drop_column("jobs", column)
    op.drop_column("artifacts", "removal_reason")
    op.drop_column("artifacts", "removed_at")
    op.drop_table("model_purges")
    op.drop_column("models", "deleted_at")

"""What was understood of a data set: its layout, what was left out, warnings."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0011"


def upgrade() -> None:
    """Apply."""
    op.add_column("datasets", sa.Column("understood", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("datasets", "understood")

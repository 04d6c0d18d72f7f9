"""Keys keep which key made them, and which one had them rotated last."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply. Of keys that are there nobody knows who made them, but the audit log."""
    for column in ("made_by", "rotated_by"):
        op.add_column("api_keys", sa.Column(column, sa.Text(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_api_keys_{column}_api_keys"), "api_keys", "api_keys", [column], ["id"]
        )
        op.create_index(op.f(f"ix_api_keys_{column}"), "api_keys", [column])


def downgrade() -> None:
    """Take back."""
    for column in ("rotated_by", "made_by"):
        op.drop_index(op.f(f"ix_api_keys_{column}"), table_name="api_keys")
        op.drop_constraint(op.f(f"fk_api_keys_{column}_api_keys"), "api_keys", type_="foreignkey")
        op.drop_column("api_keys", column)

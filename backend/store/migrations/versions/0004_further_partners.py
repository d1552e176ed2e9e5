"""several counterparts in one answer

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("pair_queries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("further_partners", sa.JSON(), nullable=False, server_default="[]"))

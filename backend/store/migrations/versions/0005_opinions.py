"""what Label Studio was asked to raise the overlap of a task to

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("overlap_asked", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("overlap_before", sa.Integer(), server_default="0", nullable=False))

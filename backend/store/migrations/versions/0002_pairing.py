"""catalogue and questions of pairing projects

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalogue",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.String(length=128), nullable=False),
        sa.Column("modality", sa.String(length=8), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("embedded_with", sa.String(length=128), nullable=False),
        sa.Column("embed_order", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("written", sa.String(length=160), nullable=False),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "number"),
    )
    with op.batch_alter_table("catalogue", schema=None) as batch_op:
        batch_op.create_index("catalogue_by_id", ["project_id", "item_id"], unique=True)
        batch_op.create_index("catalogue_to_embed", ["project_id", "embedded_with", "embed_order"], unique=False)

    op.create_table(
        "pair_queries",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("modality", sa.String(length=8), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("similarities", sa.JSON(), nullable=False),
        sa.Column("purpose", sa.String(length=12), nullable=False),
        sa.Column("why", sa.String(length=24), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("answer", sa.String(length=12), nullable=False),
        sa.Column("partner", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key"),
    )
    with op.batch_alter_table("pair_queries", schema=None) as batch_op:
        batch_op.create_index("pair_queries_by_task", ["project_id", "task_id"], unique=False)

"""a mark for what is tried again, and indices that count and list tasks without reading their contents

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("tasks", "catalogue"):
        op.add_column(table, sa.Column("embed_again", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index("tasks_by_label", "tasks")
    op.create_index("tasks_by_label", "tasks", ["project_id", "deleted", "label_kind", "embedded_with", "restored"])
    op.drop_index("tasks_to_embed", "tasks")
    op.create_index("tasks_to_embed", "tasks", ["project_id", "deleted", "embedded_with", "embed_order"])
    op.create_index("answers_by_kind", "answers", ["project_id", "was_cancelled"])
    unreadable = "image_problem <> '' OR text_problem <> ''"
    _index_unreadable("tasks", ["project_id", "deleted", "embed_again", "embed_order"], unreadable)
    _index_unreadable("catalogue", ["project_id", "embed_again", "embed_order"], "problem <> ''")


def _index_unreadable(table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(f"{table}_unreadable", table, columns, sqlite_where=where, postgresql_where=where)

"""how many items of a catalogue are in which state, without reading their contents

Revision: 0007, after 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("catalogue_by_state", "catalogue", ["project_id", "state", "modality", "embedded_with"])

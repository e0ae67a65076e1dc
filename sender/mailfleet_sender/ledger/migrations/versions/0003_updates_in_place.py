"""Updates of a range's row change no index, and find room beside the row (HOT): cheap also under a held snapshot."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The index of touched ranges by a column that only a takeover changes; room in the blocks to come."""
    op.execute("DROP INDEX range_active")
    op.execute("CREATE INDEX range_active ON range (run) WHERE state = 'Open' AND epoch > 0")
    op.execute("ALTER TABLE range SET (fillfactor = 20)")
    op.execute("ALTER TABLE usage SET (fillfactor = 50)")

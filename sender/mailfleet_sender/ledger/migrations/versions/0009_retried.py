"""How many recipients the last generation of retryFailed came to, and an approval that is older than its run."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns; none of them rewrites a table."""
    op.execute("ALTER TABLE run ADD retried bigint, ADD approved_before int")

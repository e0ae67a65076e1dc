"""How many recipients the last generation of retryFailed came to."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column that rewrites no table."""
    op.execute("ALTER TABLE run ADD retried bigint")

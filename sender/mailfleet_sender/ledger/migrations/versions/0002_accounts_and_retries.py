"""What a range's owner hands over to which account, and retries of failed recipients, once a generation."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three columns; none of them rewrites a table."""
    op.execute("ALTER TABLE range ADD account text")
    op.execute("ALTER TABLE run ADD retry_generation int NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE doubt ADD retried boolean NOT NULL DEFAULT false")

"""Why a run was ended as Failed: so that a campaign that is deleted and applied again still says it."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column; it rewrites no table."""
    op.execute("ALTER TABLE run ADD end_reason text")

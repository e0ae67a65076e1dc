"""Waves that wait for the canary step before them, and pauses that brake or relay made."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Six columns; none of them rewrites a table."""
    op.execute("ALTER TABLE wave ADD held boolean NOT NULL DEFAULT false, ADD ended_at timestamptz")
    op.execute(
        "ALTER TABLE run ADD paused_at timestamptz, ADD pause_reason text, ADD pause_message text,"
        " ADD resumed_at timestamptz"
    )

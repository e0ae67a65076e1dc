"""Why recipients failed, counted without looking at those who did not."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """An index of failed deliveries alone: a mail that is sent writes nothing into it.

    While it is built records wait; senders repeat them until they are written.
    """
    op.execute("CREATE INDEX delivery_failed ON delivery (run, enhanced, code) WHERE outcome = 'failed'")

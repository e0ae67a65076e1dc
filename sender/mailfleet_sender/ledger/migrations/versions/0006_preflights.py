"""What preflights found out about relays; and versions of relays from one row of numbers, as relays share accounts."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table, and a sequence that goes on above every version there is."""
    op.execute("""
CREATE TABLE preflight (
    namespace text NOT NULL,
    name text NOT NULL,
    made_for text NOT NULL,
    reporter text NOT NULL,
    fault text,
    message text NOT NULL,
    capabilities text[] NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
)""")
    op.execute("CREATE SEQUENCE relay_version")
    op.execute("SELECT setval('relay_version', coalesce(max(version), 0) + 1, false) FROM relay")

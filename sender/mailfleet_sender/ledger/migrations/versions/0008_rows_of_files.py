"""Rows loaded from CSV files, each load under its plan's number; and what people are told of a planned audience."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables, and a column that rewrites none."""
    op.execute("ALTER TABLE run ADD audience jsonb")
    op.execute("""
        CREATE TABLE csv_load (
            run bigint NOT NULL REFERENCES run, plan int NOT NULL,
            columns text[] NOT NULL, email int NOT NULL, keyed boolean NOT NULL,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (run, plan)
        )
    """)
    op.execute("""
        CREATE TABLE csv_row (
            run bigint NOT NULL, plan int NOT NULL, line bigint NOT NULL, key text, fields text[] NOT NULL,
            PRIMARY KEY (run, plan, line)
        )
    """)
    op.execute("CREATE INDEX csv_row_key ON csv_row (run, plan, key) WHERE key IS NOT NULL")

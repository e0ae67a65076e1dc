"""The ledger's tables, with the sum of each range held by the database itself (LEDGER section 2)."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SENT_TO_DEFERRED = """
    sent {t} NOT NULL DEFAULT 0, failed {t} NOT NULL DEFAULT 0, suppressed {t} NOT NULL DEFAULT 0,
    skipped {t} NOT NULL DEFAULT 0, uncertain {t} NOT NULL DEFAULT 0, cancelled {t} NOT NULL DEFAULT 0,
    deferred {t} NOT NULL DEFAULT 0"""

_WIDTH = """
CREATE FUNCTION width(int4multirange) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT coalesce(sum(upper(r) - lower(r)), 0)::int FROM unnest($1) r'
"""

_RUN = f"""
CREATE TABLE run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL, name text NOT NULL, run_id text NOT NULL,
    spec_hash text NOT NULL,
    key_type text,
    state text NOT NULL DEFAULT 'Planning' CONSTRAINT run_state CHECK
        (state IN ('Planning', 'Planned', 'Open', 'Complete', 'Cancelled', 'Failed', 'Superseded')),
    plan_wanted int NOT NULL DEFAULT 0,
    plan_id int,
    on_uncertain text NOT NULL CONSTRAINT run_on_uncertain CHECK (on_uncertain IN ('Skip', 'Resend')),
    planned bigint NOT NULL DEFAULT 0, {_SENT_TO_DEFERRED.format(t="bigint")},
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    UNIQUE (namespace, name, run_id)
)
"""

_RUN_MESSAGE = """
CREATE TABLE run_message (
    run bigint PRIMARY KEY REFERENCES run,
    body bytea NOT NULL,
    attachments jsonb NOT NULL DEFAULT '{}'::jsonb
)
"""

_PAGE = """
CREATE TABLE page (
    run bigint NOT NULL REFERENCES run,
    plan int NOT NULL, wave int NOT NULL, number int NOT NULL,
    keys text[] NOT NULL,
    attempts smallint[],
    since timestamptz[],
    reason text,
    PRIMARY KEY (run, plan, wave, number),
    CONSTRAINT page_size CHECK (cardinality(keys) BETWEEN 1 AND 500),
    CONSTRAINT page_reason CHECK ((wave = -1) = (reason IS NOT NULL)),
    CONSTRAINT page_retry CHECK (cardinality(attempts) = cardinality(keys) AND cardinality(since) = cardinality(keys))
)
"""

_WAVE = """
CREATE TABLE wave (
    run bigint NOT NULL REFERENCES run,
    number int NOT NULL,
    kind text NOT NULL CONSTRAINT wave_kind CHECK (kind IN ('Canary', 'Main', 'Retry', 'Repair')),
    ranges int NOT NULL,
    planned bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, number)
)
"""

_RANGE = f"""
CREATE TABLE range (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL REFERENCES run,
    wave int NOT NULL, idx int NOT NULL,
    plan int NOT NULL, page_wave int NOT NULL, first_page int NOT NULL,
    planned int NOT NULL CONSTRAINT range_planned CHECK (planned > 0),
    from_verdict text CONSTRAINT range_from_verdict CHECK (from_verdict IN ('deferred', 'failed', 'uncertain')),
    state text NOT NULL DEFAULT 'Open' CONSTRAINT range_state CHECK (state IN ('Open', 'Finished', 'Closed')),
    epoch bigint NOT NULL DEFAULT 0, seq bigint NOT NULL DEFAULT 0,
    owner uuid, lease_until timestamptz,
    pos int NOT NULL DEFAULT 0,
    open int4multirange NOT NULL DEFAULT '{{}}', returned int4multirange NOT NULL DEFAULT '{{}}',
    resend int4multirange NOT NULL DEFAULT '{{}}', resending int4multirange NOT NULL DEFAULT '{{}}',
    {_SENT_TO_DEFERRED.format(t="int")},
    UNIQUE (run, wave, idx),
    CONSTRAINT range_sum CHECK (
        pos - width(open) - CASE state WHEN 'Closed' THEN 0 ELSE width(returned) END
        = sent + failed + suppressed + skipped + uncertain + deferred
          + CASE state WHEN 'Closed' THEN cancelled - (planned - pos) ELSE cancelled END),
    CONSTRAINT range_terms CHECK (least(sent, failed, suppressed, skipped, uncertain, cancelled, deferred) >= 0),
    CONSTRAINT range_doubt CHECK (uncertain >= width(resend) + width(resending) AND width(resending) <= 1),
    CONSTRAINT range_apart CHECK (
        open * returned = '{{}}' AND resend * resending = '{{}}' AND (open + returned) * (resend + resending) = '{{}}'),
    CONSTRAINT range_pos CHECK (
        pos BETWEEN 0 AND planned AND coalesce(upper(open + returned + resend + resending), 0) <= pos),
    CONSTRAINT range_end CHECK (
        state = 'Open' OR (owner IS NULL AND open = '{{}}' AND resend = '{{}}' AND resending = '{{}}')),
    CONSTRAINT range_fin CHECK (state <> 'Finished' OR (pos = planned AND returned = '{{}}'))
) WITH (fillfactor = 50)
"""

_DELIVERY = """
CREATE TABLE delivery (
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run bigint NOT NULL, range bigint NOT NULL, pos int NOT NULL,
    key text,
    attempt smallint NOT NULL,
    outcome text NOT NULL CONSTRAINT delivery_outcome CHECK
        (outcome IN ('sent', 'failed', 'suppressed', 'skipped', 'uncertain', 'cancelled', 'deferred')),
    code text, enhanced text, reply text, relay_queue_id text,
    address_hash bytea
) PARTITION BY RANGE (at)
"""

_SMALL = """
CREATE TABLE deferral (
    range bigint NOT NULL, pos int NOT NULL, run bigint NOT NULL, key text,
    attempt smallint NOT NULL, since timestamptz NOT NULL, due_at timestamptz NOT NULL,
    PRIMARY KEY (range, pos)
);
CREATE INDEX deferral_due ON deferral (run, due_at);
CREATE TABLE doubt (range bigint NOT NULL, pos int NOT NULL, key text, PRIMARY KEY (range, pos));
CREATE TABLE late_outcome (
    range bigint NOT NULL, pos int NOT NULL, key text,
    outcome text NOT NULL CONSTRAINT late_outcome_outcome CHECK (outcome IN ('sent', 'failed')),
    attempt smallint NOT NULL, code text, enhanced text, reply text, relay_queue_id text, address_hash bytea,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (range, pos)
);
CREATE TABLE suppression (
    scope text NOT NULL, address_hash bytea NOT NULL, reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(), expires_at timestamptz,
    PRIMARY KEY (scope, address_hash)
);
CREATE TABLE usage (
    relay text NOT NULL, bucket timestamptz NOT NULL, range bigint NOT NULL, n int NOT NULL,
    PRIMARY KEY (relay, bucket, range)
);
CREATE TABLE report (
    run bigint NOT NULL REFERENCES run, reporter text NOT NULL,
    reason text NOT NULL, message text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, reporter)
);
CREATE TABLE relay (
    namespace text NOT NULL, name text NOT NULL, version bigint NOT NULL, body jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
);
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT installation_one CHECK (one),
    address_key bytea NOT NULL
)
"""

_REST = (
    "CREATE INDEX range_open ON range (run) WHERE state = 'Open'",
    "CREATE INDEX range_active ON range (run) WHERE state = 'Open' AND seq > 0",
    "CREATE INDEX delivery_key ON delivery (run, key)",
    "CREATE INDEX delivery_address ON delivery (address_hash) WHERE address_hash IS NOT NULL",
    "CREATE TABLE delivery_default PARTITION OF delivery DEFAULT",
)


def upgrade() -> None:
    """Make everything."""
    for statement in (_WIDTH, _RUN, _RUN_MESSAGE, _PAGE, _WAVE, _RANGE, _DELIVERY, _SMALL, *_REST):
        op.execute(statement)

"""The verb `plan`: freeze a run's audience into pages of the ledger, after trying its message on real rows."""

from __future__ import annotations

import time
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from . import last_words
from .audience import Audience, Row, open_recipients
from .collecting import collect
from .composing import composer_of
from .contract.accounts import ReportReason
from .contract.environment import CONFIG_MAPS, Exit
from .errors import ComposeError, LedgerUnavailable, PlanError, PlanMismatch
from .ledger import Planner, load_campaign, open_ledger, report
from .message import LocalCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .audience import KeyType
    from .contract.campaign import Canary
    from .ledger import Plan, PlannedPage
    from .ledger.records import Snapshot
    from .message import Composer
    from .settings import PlanSettings

SAMPLE = 50
"""Real rows that the message is tried on."""
PARSED_OCTETS = 8 * 1024 * 1024
"""Of the sample so much is read back, and one mail at least: with large attachments they are alike but for a line."""
TEMPORARY = frozenset(
    {
        ReportReason.DATABASE_UNAVAILABLE,
        ReportReason.DATABASE_REFUSED,
        ReportReason.CONFIG_MAP_NOT_FOUND,
        ReportReason.INTERNAL_ERROR,
    }
)
"""Reasons that another pod may not meet: a database comes back, a Secret is mended and read anew."""

# Failures of a sampled row that lie in the template. The others lie in that row, and will be its own failure.
_TEMPLATE_FAULTS = frozenset({LocalCode.VALUE_MISSING, LocalCode.RENDER_FAILED})

log = structlog.get_logger()


def plan(settings: PlanSettings) -> Exit:
    """Plan one run, or say why not: a report in the ledger, or the termination message if the ledger failed.

    Returns:
        DONE: published, or nothing to do; INTERRUPTED: try again; IMPOSSIBLE: not as the campaign, its table or
        its database stand.
    """
    try:
        ledger = open_ledger(settings.ledger_url, application_name=f"mailfleet-planner {settings.reporter}")
        return plan_run(
            ledger,
            run=settings.run,
            database_url=settings.database_url,
            reporter=settings.reporter,
            config_folder=settings.config_folder,
        )
    except LedgerUnavailable as error:
        log.warning("ledger unavailable", error=str(error))
        last_words.leave("the ledger does not answer; check ledger-url in the namespace's sender Secret and its server")
        return Exit.INTERRUPTED


def plan_run(
    ledger: sa.Engine, *, run: int, database_url: str, reporter: str, config_folder: Path = Path(CONFIG_MAPS)
) -> Exit:
    """`plan` over an open ledger.

    Args:
        ledger: what `open_ledger` gave.
        run: the run's id.
        database_url: of the recipients' database.
        reporter: the name under which a failure is reported; a success clears its report.
        config_folder: where the ConfigMaps are that the message names.

    Raises:
        LedgerUnavailable: nothing was published, or it is not known.
    """
    began = time.monotonic()
    try:
        snapshot = load_campaign(ledger, run)
    except (LookupError, ValueError) as error:
        log.critical("no such run, or one of a newer version", run=run)
        last_words.leave(str(error))
        return Exit.IMPOSSIBLE
    planner = Planner(ledger)
    if (started := planner.start(run, snapshot.campaign.definition_hash())) is None:
        log.info("nothing to plan: planned, edited or started already", run=run)
        planner.sweep(run)  # what a planner left that died before it could
        return Exit.DONE
    try:
        materials = collect(snapshot.campaign.message, config_folder)
        audience, key_type = _checked(snapshot, composer_of(snapshot, materials), database_url, reporter)
        counts = _Counts()
        planner.write(started, counts.through(audience.pages()))
        counts.check_steps(snapshot.campaign.canary)
        published = planner.publish(started, counts.planned, counts.skipped, key_type, materials)
    except PlanError as error:
        return _failed(ledger, run, reporter, error)
    except (PlanMismatch, sa.exc.SQLAlchemyError) as error:
        # Without the error's own text: a database quotes values of rows in it.
        what = getattr(getattr(error, "orig", None), "pgcode", None) or type(error).__name__
        message = f"a statement of the plan failed ({what}): if it stays, try a SELECT of table or view with the role"
        return _failed(ledger, run, reporter, PlanError(ReportReason.INTERNAL_ERROR, message))
    report(ledger, run, reporter, None)
    planner.sweep(run)
    return _ended(started, counts, published=published, seconds=time.monotonic() - began)


def _ended(plan: Plan, counts: _Counts, *, published: bool, seconds: float) -> Exit:
    log.info(
        "plan published" if published else "another plan, an edit or the start came first",
        run=plan.run,
        plan=plan.number,
        planned=counts.planned,
        skipped=counts.skipped,
        reasons=counts.reasons,
        seconds=round(seconds, 3),
        peak_rss_kib=_peak_rss_kib(),
    )
    return Exit.DONE


def _peak_rss_kib() -> int:
    """Of this program alone: getrusage's figure also holds the process that started it, before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


class _Counts:
    """Counts keys while pages pass by."""

    def __init__(self) -> None:
        self.planned = 0
        self.reasons: dict[str, int] = {}
        self.steps: dict[int, int] = {}

    @property
    def skipped(self) -> int:
        return sum(self.reasons.values())

    def through(self, pages: Iterator[PlannedPage]) -> Iterator[PlannedPage]:
        for page in pages:
            self.planned += page.keys.count
            if page.reason is not None:
                self.reasons[page.reason] = self.reasons.get(page.reason, 0) + page.keys.count
            elif page.step:
                self.steps[page.step] = self.steps.get(page.step, 0) + page.keys.count
            yield page

    def check_steps(self, canary: Canary | None) -> None:
        """Whether the database has cut the audience as the canary says.

        Raises:
            PlanMismatch: it has not.
        """
        sizes = canary.sizes(self.planned - self.skipped) if canary else ()
        if self.steps != dict(enumerate(sizes, 1)):
            raise PlanMismatch(f"canary steps of {self.steps} recipients, not {sizes}")


def _checked(snapshot: Snapshot, composer: Composer, database_url: str, reporter: str) -> tuple[Audience, KeyType]:
    """The audience and its key's type, once the message was tried on it.

    Raises:
        PlanError: with the remedy.
    """
    recipients = snapshot.campaign.recipients
    audience = Audience(
        open_recipients(database_url, application_name=f"mailfleet-planner {reporter}"),
        recipients.table,
        composer.columns,
        exclude=recipients.exclude,
        duplicate_addresses=recipients.duplicate_addresses,
        steps=snapshot.campaign.canary.steps if snapshot.campaign.canary else (),
    )
    key_type = audience.check()
    for column, count in audience.nulls(composer.required).items():
        raise PlanError(
            ReportReason.TEMPLATE_INVALID,
            f"the column {column!r} is NULL in {count} rows, and {composer.field_of(column)} uses it without default: "
            f"write {{{{ {column}|default('...') }}}}, or exclude these rows with match (IsNotNull)",
        )
    _try(composer, audience)
    return audience, key_type


def _try(composer: Composer, audience: Audience) -> None:
    """Render a sample and read it back; the standard library's parser is the judge."""
    rows = [row for row in audience.sample(SAMPLE) if isinstance(row, Row)]
    faults: list[ComposeError] = []
    parsed_octets = 0
    for row in rows:
        try:
            mail = composer.compose(row, key=row.key, eight_bit=True)
        except ComposeError as error:
            if error.code in _TEMPLATE_FAULTS:
                faults.append(error)
            continue
        if parsed_octets > PARSED_OCTETS:
            continue
        parsed_octets += len(mail.body)
        parsed = message_from_bytes(mail.body, policy=policy.default)
        if parsed.defects or str(parsed["To"]) != mail.recipient or len(list(parsed.walk())) != composer.parts:
            raise PlanError(
                ReportReason.INTERNAL_ERROR, "a sampled message cannot be read back as it was written: please report it"
            )
    if faults:
        raise PlanError(
            ReportReason.TEMPLATE_INVALID,
            f"{len(faults)} of {len(rows)} sampled rows cannot be rendered: {faults[0].detail}; use default, or "
            "exclude these rows with match",
        )


def _failed(ledger: sa.Engine, run: int, reporter: str, error: PlanError) -> Exit:
    log.error("no plan", run=run, reason=str(error.reason), message=error.message)
    report(ledger, run, reporter, error.reason, error.message)
    return Exit.INTERRUPTED if error.reason in TEMPORARY else Exit.IMPOSSIBLE

"""The verb `plan`: freeze a run's audience into pages of the ledger, after trying its message on real rows."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from . import last_words
from .audience import Row, SkipReason
from .collecting import collect
from .composing import composer_of
from .contract.accounts import ReportReason
from .contract.environment import CONFIG_MAPS, VOLUME, Exit
from .errors import ComposeError, LedgerUnavailable, PlanError, PlanMismatch, PlanSuperseded
from .ledger import Planner, drop_load, load_campaign, open_ledger, report
from .message import LocalCode
from .sourcing import audience_of, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .audience import Audience, KeyType
    from .contract.campaign import Canary
    from .ledger import KeyArray, Plan, PlannedPage
    from .message import Composer
    from .settings import Network, PlanSettings

SAMPLE = 50
"""Real rows that the message is tried on."""
PARSED_OCTETS = 8 * 1024 * 1024
"""Of the sample so much is read back, and one mail at least: with large attachments they are alike but for a line."""
SPREAD_PAGES = 20
"""Of at least so many pages, if there are so many, the recipients are counted by domain: 10,000 tell a share to 1 %."""
LINES_TOLD = 3
_WITH_LINES = frozenset({SkipReason.NO_ADDRESS, SkipReason.INVALID_ADDRESS, SkipReason.ADDRESS_NOT_ASCII})
"""What a person mends in a file."""
TEMPORARY = frozenset(
    {
        ReportReason.DATABASE_UNAVAILABLE,
        ReportReason.DATABASE_REFUSED,
        ReportReason.CONFIG_MAP_NOT_FOUND,
        ReportReason.SOURCE_UNAVAILABLE,
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
            volume_folder=settings.volume_folder,
            networks=settings.networks,
            ledger_url=settings.ledger_url,
        )
    except LedgerUnavailable as error:
        log.warning("ledger unavailable", error=str(error))
        last_words.leave("the ledger does not answer; check ledger-url in the namespace's sender Secret and its server")
        return Exit.INTERRUPTED


def plan_run(
    ledger: sa.Engine,
    *,
    run: int,
    database_url: str | None,
    reporter: str,
    config_folder: Path = Path(CONFIG_MAPS),
    volume_folder: Path = Path(VOLUME),
    networks: Sequence[Network] = (),
    ledger_url: str = "",
) -> Exit:
    """`plan` over an open ledger.

    Args:
        ledger: what `open_ledger` gave.
        run: the run's id.
        database_url: of the recipients' database, where they are a table.
        reporter: the name under which a failure is reported; a success clears its report.
        config_folder: where the ConfigMaps are that the campaign names.
        volume_folder: where the volume is that holds a file of recipients.
        networks: from which such a file may be fetched though they are private.
        ledger_url: where the rows of a file are read again.

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
    campaign = snapshot.campaign
    planner = Planner(ledger)
    if (started := planner.start(run, campaign.definition_hash())) is None:
        log.info("nothing to plan: planned, edited or started already", run=run)
        planner.sweep(run)  # what a planner left that died before it could
        return Exit.DONE
    planner.sweep(run)  # a planner that died may have left rows of a file
    counts = _Counts(with_lines=bool(campaign.recipients.csv and campaign.recipients.csv.key_column is None))
    try:
        materials = collect(campaign.message, config_folder)
        composer = composer_of(snapshot, materials)
        if campaign.recipients.csv:
            counts.file_read_at = datetime.now(UTC)
            files = {"config_folder": config_folder, "volume_folder": volume_folder}
            load(ledger, started, campaign.recipients.csv, composer.columns, networks=networks, **files)
        audience = audience_of(
            campaign.recipients,
            composer.columns,
            run=run,
            plan=started.number,
            steps=campaign.canary.steps if campaign.canary else (),
            database_url=database_url,
            ledger_url=ledger_url,
            application_name=f"mailfleet-planner {reporter}",
        )
        key_type = _checked(composer, audience)
        planner.write(started, counts.through(audience.pages()))
        counts.check_steps(campaign.canary)
        told = counts.told(audience)
        published = planner.publish(started, counts.planned, counts.skipped, key_type, materials, audience=told)
    except PlanSuperseded as error:
        log.info("a newer plan came first", run=run, why=str(error))
        return Exit.DONE
    except PlanError as error:
        drop_load(ledger, run, started.number)
        return _failed(ledger, run, reporter, error)
    except (PlanMismatch, sa.exc.SQLAlchemyError) as error:
        drop_load(ledger, run, started.number)
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
    """Counts keys while pages pass by, and keeps some, evenly spread, to be asked for their domains."""

    def __init__(self, *, with_lines: bool) -> None:
        """`with_lines`: keys are lines of a file, so that people can be told where rows are that are skipped."""
        self.planned = 0
        self.reasons: dict[str, int] = {}
        self.steps: dict[int, int] = {}
        self._with_lines = with_lines
        self._lines: dict[str, list[str]] = {}
        self._kept: list[KeyArray] = []
        self._stride = 1
        self.file_read_at: datetime | None = None

    @property
    def skipped(self) -> int:
        return sum(self.reasons.values())

    def through(self, pages: Iterator[PlannedPage]) -> Iterator[PlannedPage]:
        for page in pages:
            self.planned += page.keys.count
            if page.reason is not None:
                self.reasons[page.reason] = self.reasons.get(page.reason, 0) + page.keys.count
                if self._with_lines and page.reason in _WITH_LINES and page.reason not in self._lines:
                    self._lines[page.reason] = page.keys.apart()[:LINES_TOLD]
            else:
                if page.step:
                    self.steps[page.step] = self.steps.get(page.step, 0) + page.keys.count
                if page.number % self._stride == 0:
                    self._keep(page.keys)
            yield page

    def check_steps(self, canary: Canary | None) -> None:
        """Whether the database has cut the audience as the canary says.

        Raises:
            PlanMismatch: it has not.
        """
        sizes = canary.sizes(self.planned - self.skipped) if canary else ()
        if self.steps != dict(enumerate(sizes, 1)):
            raise PlanMismatch(f"canary steps of {self.steps} recipients, not {sizes}")

    def told(self, audience: Audience) -> dict[str, object]:
        """What people are told of the audience: `audience` of `Planner.publish`."""
        counts = audience.domains([key for page in self._kept for key in page.apart()])
        whole = sum(page.count for page in self._kept)
        shares = [(domain, round(100 * count / whole)) for domain, count in counts]
        read = {"fileReadAt": self.file_read_at.isoformat(timespec="seconds")} if self.file_read_at else {}
        return {"domains": [list(share) for share in shares if share[1]], "lines": self._lines, **read}

    def _keep(self, keys: KeyArray) -> None:
        """From 20 to 40 pages of however many: when there are more, every other one goes."""
        self._kept.append(keys)
        if len(self._kept) > 2 * SPREAD_PAGES:
            self._kept = self._kept[::2]
            self._stride *= 2


def _checked(composer: Composer, audience: Audience) -> KeyType:
    """The type of the audience's key, once the message was tried on it.

    Raises:
        PlanError: with the remedy.
    """
    key_type = audience.check()
    for column, count in audience.nulls(composer.required).items():
        raise PlanError(
            ReportReason.TEMPLATE_INVALID,
            f"the column {column!r} is NULL in {count} rows, and {composer.field_of(column)} uses it without default: "
            f"write {{{{ {column}|default('...') }}}}, or exclude these rows with match (IsNotNull)",
        )
    _try(composer, audience)
    return key_type


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

"""The verb `preview`: mails of a planned run, exactly as its senders would make them, on standard output."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from .audience import Row, UnusableRow
from .composing import composer_of
from .contract import environment
from .contract.environment import Exit
from .errors import ComposeError, LedgerUnavailable, NotThereError, PlanError, SettingsError
from .ledger import AddressHasher, Runs, fate_of, first_keys, load_address_key, load_campaign, open_ledger, suppressed
from .sourcing import audience_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from .audience import Audience
    from .ledger import RunRow, Snapshot
    from .message import Composer
    from .settings import Environment

_FROM_LINE = re.compile(rb"^(>*From )", re.MULTILINE)
log = structlog.get_logger()


def preview(arguments: Namespace, env: Environment) -> Exit:
    """Write the mails that the command line asks for: one as it is, several as an mbox.

    Raises:
        SettingsError: something on the command line or in the environment cannot be meant.
    """
    several = arguments.first is not None and arguments.first > 1
    ledger = open_ledger(env.text(environment.LEDGER_URL), application_name="mailfleet-preview")
    try:
        planned = Planned.find(ledger, arguments, env)
        written = 0
        for row in planned.rows(arguments.key):
            if written == (arguments.first or 1):
                break
            try:
                mail = planned.composer.compose(row, key=row.key, eight_bit=not arguments.ascii)
            except ComposeError as error:
                tell(f"the recipient with the key {row.key} gets no mail: {error}")
                continue
            sys.stdout.buffer.write(_in_mbox(mail.body) if several else mail.body)
            written += 1
        sys.stdout.buffer.flush()
    except (NotThereError, PlanError) as error:
        tell(str(error))
        return Exit.IMPOSSIBLE
    except LedgerUnavailable as error:
        log.warning("the ledger does not answer: run the same again", error=str(error))
        return Exit.INTERRUPTED
    finally:
        ledger.dispose()
    return Exit.DONE if written else Exit.IMPOSSIBLE


def tell(what: str) -> None:
    """Say something beside the mail."""
    sys.stderr.write(what + "\n")


def _in_mbox(body: bytes) -> bytes:
    """One message of an mbox (RFC 4155; ">From " as in mboxrd), its lines ended by LF."""
    quoted = _FROM_LINE.sub(rb">\1", body.replace(b"\r\n", b"\n"))
    return b"From preview@mailfleet.invalid Thu Jan  1 00:00:00 1970\n" + quoted + b"\n"


@dataclass(frozen=True, slots=True)
class Planned:
    """A run with a plan, and the way to its recipients; nothing here writes anywhere."""

    ledger: Engine
    run: RunRow
    snapshot: Snapshot
    composer: Composer
    audience: Audience

    @classmethod
    def find(cls, ledger: Engine, arguments: Namespace, env: Environment) -> Planned:
        """What the command line names, or the run of the pod in which the verb is called.

        Raises:
            NotThereError: there is no such run, or it is not planned.
            PlanError: its message cannot be compiled.
            SettingsError: a word of the command line or a variable cannot be meant.
            LedgerUnavailable: the ledger does not answer.
        """
        run = _run(Runs(ledger), arguments, env)
        if run.plan_id is None:
            raise NotThereError(
                f"the run {run.run_id} of {run.namespace}/{run.name} is not planned yet: its condition Planned says why"
            )
        snapshot = load_campaign(ledger, run.id)
        composer = composer_of(snapshot)
        audience = audience_of(
            snapshot.campaign.recipients,
            composer.columns,
            run=run.id,
            database_url=env.variables.get(environment.DATABASE_URL) or None,
            ledger_url=env.text(environment.LEDGER_URL),
            application_name="mailfleet-preview",
        )
        return cls(ledger, run, snapshot, composer, audience)

    def rows(self, key: str | None) -> Iterator[Row]:
        """The recipient with this key, or those of the first page in their order; who is not there is told.

        Raises:
            NotThereError: the key is not in the plan, or the plan's pages are gone.
            PlanError: the recipients cannot be read.
        """
        keys = [key] if key is not None else first_keys(self.ledger, self.run.id, self._plan)
        if key is not None:
            self._tell_fate(key)
        elif not keys:
            raise NotThereError("nobody is planned to get a mail, or the run ended so long ago that its keys are gone")
        found = self.audience.rows(keys)
        reasons = self._suppressed(list(found.values()))
        for one in keys:
            row = found.get(one)
            if row is None:
                tell(f"the recipient with the key {one} gets no mail: deleted or not matching since the plan")
            elif isinstance(row, UnusableRow):
                tell(f"the recipient with the key {one} gets no mail: {row.code}: {row.detail}")
            else:
                if reason := reasons.get(one):
                    tell(f"the recipient with the key {one} gets no mail: suppressed, {reason}")
                yield row

    @property
    def _plan(self) -> int:
        assert self.run.plan_id is not None
        return self.run.plan_id

    def _tell_fate(self, key: str) -> None:
        fate = fate_of(self.ledger, self.run.id, self._plan, key)
        if fate is None:
            raise NotThereError(
                f"no recipient has the key {key} in the plan of run {self.run.run_id}: keys are {self._keys()}, "
                "as they were when the run was planned"
            )
        if fate:
            tell(f"the recipient with the key {key} gets no mail: skipped by the plan, {fate}")

    def _keys(self) -> str:
        recipients = self.snapshot.campaign.recipients
        if recipients.table:
            return f"values of the column {recipients.table.key_column}"
        keyed = recipients.csv and recipients.csv.key_column
        return f"values of the column {keyed}" if keyed else "numbers of lines of the file"

    def _suppressed(self, rows: Sequence[Row | UnusableRow]) -> dict[str, str]:
        """Reasons by key."""
        hasher = AddressHasher(load_address_key(self.ledger))
        hashes = {row.key: h for row in rows if isinstance(row, Row) and (h := hasher(row.email))}
        reasons = suppressed(self.ledger, self.run.namespace, list(hashes.values()))
        return {key: reasons[h] for key, h in hashes.items() if h in reasons}


def _run(runs: Runs, arguments: Namespace, env: Environment) -> RunRow:
    if arguments.campaign is None:
        number = int(env.number(environment.RUN, 0))
        if not number:
            raise SettingsError("name the campaign as namespace/name; only a pod of a campaign knows its own")
        if (found := runs.get(number)) is None:
            raise NotThereError(f"the ledger knows no run {number}")
        return found
    namespace, slash, name = arguments.campaign.partition("/")
    if not (namespace and slash and name):
        raise SettingsError(f"{arguments.campaign!r} must be namespace/name, such as marketing/autumn-news")
    known = runs.find(namespace, name)
    if not known:
        raise NotThereError(f"the ledger knows no campaign {namespace}/{name}: has the operator seen it?")
    if arguments.run_id is None:
        return known[-1]
    for run in known:
        if run.run_id == arguments.run_id:
            return run
    raise NotThereError(
        f"{namespace}/{name} has no run {arguments.run_id}, but {', '.join(r.run_id for r in known[-9:])}"
    )

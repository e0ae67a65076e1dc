"""The sender's command line: one verb a pod, and `preview`, `test`, `preflight`, `suppress` and `erase` for people."""

from __future__ import annotations

import argparse
import os
import signal
import sys

import structlog

from .contract import environment
from .contract.environment import Exit
from .errors import SettingsError
from .settings import Environment, PlanSettings, PreflightSettings, SendSettings

log = structlog.get_logger()


_ADDRESSES = "an address; - reads them from standard input, so that no process list shows them"


def command_line() -> argparse.ArgumentParser:
    """The verbs and their arguments."""
    parser = argparse.ArgumentParser(prog="mailfleet-sender", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("plan", help="freeze the audience of a run into pages of the ledger")
    verbs.add_parser("send", help="send one range of a wave")
    one = verbs.add_parser("preflight", help="connect to a relay as a sender does; say what it offers or what is wrong")
    one.add_argument("relay", nargs="?", metavar="NAMESPACE/NAME", help="the EmailRelay; without it, that of this pod")
    verbs.add_parser("migrate", help="bring the ledger's schema up to date; may run at any time, twice, at once")
    verbs.add_parser("check", help="whether ledger and Redis answer, and this version works with the ledger's schema")
    _describe_preview(verbs.add_parser("preview", help="write the mail that a recipient of a planned run would get"))
    _describe_test(verbs.add_parser("test", help="send one mail of a planned run to any address; nothing is counted"))
    _describe_suppress(verbs.add_parser("suppress", help="who must not have mail; needs MAILFLEET_LEDGER_URL"))
    one = verbs.add_parser("erase", help="forget persons by their addresses; needs MAILFLEET_LEDGER_URL")
    one.add_argument("addresses", nargs="+", metavar="ADDRESS", help=_ADDRESSES)
    return parser


def main() -> None:
    """The verbs are described by --help; URLs and passwords come from the environment."""
    arguments = command_line().parse_args()
    # Process 1 of a pod ignores signals that nobody handles: without this, a SIGTERM while the libraries are
    # still being loaded would be lost, and the pod be killed in full flight when its grace ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.INTERRUPTED))
    _configure_logging()
    env = Environment(os.environ)
    try:
        sys.exit(_run(arguments, env))
    except SettingsError as error:
        log.critical("unusable configuration", error=str(error))
        sys.exit(Exit.USAGE)


def _describe_preview(parser: argparse.ArgumentParser) -> None:
    """The arguments of `preview`."""
    _describe_run(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--key", metavar="KEY", help="the recipient with this key; without it, the first one")
    which.add_argument("--first", type=_few, metavar="N", help="the first N recipients (at most 500), as an mbox")
    parser.add_argument("--ascii", action="store_true", help="as for a relay without 8BITMIME")


def _describe_test(parser: argparse.ArgumentParser) -> None:
    """The arguments of `test`."""
    _describe_run(parser)
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="who gets the mail")
    parser.add_argument("--key", metavar="KEY", help="whose mail it is; without it, that of the first recipient")
    parser.add_argument("--relay", metavar="NAME", help="an EmailRelay of the campaign's namespace")


def _describe_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "campaign", nargs="?", metavar="NAMESPACE/NAME", help="the campaign; without it, that of this sender's pod"
    )
    parser.add_argument("--run-id", metavar="ID", help="one of the campaign's runs; without it, its newest one")


def _few(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 500:
        raise argparse.ArgumentTypeError("a number from 1 to 500")
    return int(text)


def _describe_suppress(parser: argparse.ArgumentParser) -> None:
    """The arguments of `suppress`: a change names its scope, a list may show all."""
    actions = parser.add_subparsers(dest="action", required=True)
    for action, what in (
        ("add", "suppress addresses"),
        ("remove", "let addresses have mail again"),
        ("list", "show what is suppressed, or whether these addresses are"),
        ("import", "suppress the addresses of a CSV file: columns address, reason, expires; - reads standard input"),
        ("export", "write what is suppressed as CSV; addresses are not known, only their hashes"),
    ):
        one = actions.add_parser(action, help=what, description=what)
        scope = one.add_mutually_exclusive_group(required=action not in {"list", "export"})
        scope.add_argument("--namespace", metavar="NS", help="for the campaigns of this namespace")
        scope.add_argument("--global", dest="everywhere", action="store_true", help="for all campaigns")
        if action in {"add", "remove", "list"}:
            one.add_argument("addresses", nargs="*" if action == "list" else "+", metavar="ADDRESS", help=_ADDRESSES)
        if action in {"add", "import"}:
            one.add_argument("--reason", default="Manual", help="one word (Manual)")
        if action == "add":
            one.add_argument("--expires", metavar="WHEN", help="a day or a moment, 2027-01-31; without it: never")
        if action == "import":
            one.add_argument("file", metavar="FILE")


def _addresses(words: list[str]) -> list[str]:
    """The addresses of the command line.

    Raises:
        SettingsError: they are to come from standard input, which holds none.
    """
    if words != ["-"]:
        return words
    if not (found := sys.stdin.read().split()):
        raise SettingsError("standard input holds no address")
    return found


def _run(arguments: argparse.Namespace, env: Environment) -> int:
    """Run one verb; its libraries are loaded here, after the signals are heard."""
    match arguments.verb:
        case "plan":
            from .planning import plan  # noqa: PLC0415

            return plan(PlanSettings.read(env))
        case "send":
            from .sending import send  # noqa: PLC0415

            return send(SendSettings.read(env))
        case "preview" | "test" | "preflight":
            return _run_for_one(arguments, env)
        case "suppress":
            from .suppressing import suppress  # noqa: PLC0415

            arguments.addresses = _addresses(getattr(arguments, "addresses", []))
            return suppress(arguments, env.text(environment.LEDGER_URL))
        case "erase":
            from .erasing import erase  # noqa: PLC0415

            return erase(_addresses(arguments.addresses), env.text(environment.LEDGER_URL))
        case _:
            return _run_for_installation(arguments.verb, env)


def _run_for_installation(verb: str, env: Environment) -> int:
    """The verbs of those who install: `migrate` and `check`."""
    if verb == "check":
        from .checking import check  # noqa: PLC0415

        return check(env)
    from .ledger import migrate  # noqa: PLC0415

    structlog.get_logger().info("migrated", shape=migrate(env.text(environment.LEDGER_URL)))
    return Exit.DONE


def _run_for_one(arguments: argparse.Namespace, env: Environment) -> int:
    """The verbs over one mail of a run, or one relay."""
    if arguments.verb == "preflight":
        from .preflighting import preflight  # noqa: PLC0415

        return preflight(PreflightSettings.read(env, arguments.relay))
    if arguments.verb == "preview":
        from .previewing import preview  # noqa: PLC0415

        return preview(arguments, env)
    from .testing import test  # noqa: PLC0415

    return test(arguments, env)


def _configure_logging() -> None:
    """JSON lines on standard error, one event each."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


if __name__ == "__main__":
    main()

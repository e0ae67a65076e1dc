"""Run the sink: `python -m mailfleet_sink --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
from pathlib import Path

from . import control
from .behaviour import Behaviour, Rule
from .control import Control
from .record import Record
from .server import Options, Session


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="mailfleet_sink",
        description="A programmable SMTP sink that logs each message it accepts, before it says so.",
        epilog=f"HTTP control:\n{control.__doc__}\nRules: {Rule.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    parser.add_argument("--smtp-port", type=int, default=2525, help="0: a free one; the first line of stdout tells")
    parser.add_argument("--control-port", type=int, default=8025, help="HTTP; 0: a free one")
    parser.add_argument(
        "--log", type=Path, required=True, help="JSON lines, one for each accepted message and recipient"
    )
    parser.add_argument("--behaviour", type=Path, help="JSON list of rules to begin with")
    parser.add_argument("--keep", type=int, default=100, help="whole messages kept in memory (default: 100)")
    parser.add_argument("--folder", type=Path, help="keep all messages whole, in this folder")
    parser.add_argument("--name", default="sink.test", help="its host name")
    parser.add_argument("--tls-cert", type=Path, help="PEM chain: offer STARTTLS")
    parser.add_argument("--tls-key", type=Path, help="PEM key")
    parser.add_argument("--implicit-tls", action="store_true", help="TLS from the first byte instead")
    parser.add_argument("--require-tls", action="store_true", help="MAIL before STARTTLS gets 530")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="offer AUTH PLAIN and LOGIN; MAIL before it gets 530")
    parser.add_argument("--no-pipelining", action="store_true", help="do not offer PIPELINING")
    parser.add_argument("--chunking", action="store_true", help="offer CHUNKING (RFC 3030)")
    parser.add_argument("--no-8bitmime", action="store_true", help="do not offer 8BITMIME")
    parser.add_argument("--size", type=int, default=50_000_000, help="largest message in bytes (default: 50 MB)")
    return parser.parse_args()


async def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    tls = None
    if args.tls_cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(args.tls_cert, args.tls_key)
    user, _, password = (args.auth or "").partition(":")
    options = Options(
        name=args.name,
        tls=tls,
        implicit_tls=args.implicit_tls,
        require_tls=args.require_tls,
        credentials=(user, password) if args.auth else None,
        pipelining=not args.no_pipelining,
        chunking=args.chunking,
        eight_bit=not args.no_8bitmime,
        size=args.size,
    )
    behaviour, sessions = Behaviour(), set[Session]()
    if args.behaviour is not None:
        behaviour.set(json.loads(args.behaviour.read_text()))
    record = Record(args.log, keep=args.keep, folder=args.folder)
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(
        lambda: Session(options, behaviour, record, sessions),
        args.host,
        args.smtp_port,
        ssl=tls if args.implicit_tls else None,
        backlog=1000,
        reuse_address=True,
    )
    http = await asyncio.start_server(Control(behaviour, record, sessions).serve, args.host, args.control_port)
    ports = {"smtp_port": smtp.sockets[0].getsockname()[1], "control_port": http.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    smtp.close()
    http.close()
    for session in list(sessions):
        session.cut()
    record.close()


def main() -> None:
    """The command."""
    asyncio.run(run(arguments()))


if __name__ == "__main__":
    main()

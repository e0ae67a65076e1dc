"""What a message takes from ConfigMaps: frozen by the plan, sent as it was then; what is missing is told."""

from __future__ import annotations

import email
import email.policy
from typing import TYPE_CHECKING, Any

import pytest

from fleet import Fleet, campaign, subscribers
from mailfleet_sender import planning
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.contract.materials import MATERIALS_OCTETS
from mailfleet_sender.ledger import load_campaign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

    from sink import Sink

LOGO = b"\x89PNG\r\n\x1a\n\0\r\n.\r\n" + bytes(range(256))
TERMS = b"%PDF-1.7\r\n.\r\nRCPT TO:<x@example.com>\r\n" * 100
FROM = "Example Shop <news@example.com>"
FILES = [
    {"name": "logo.png", "configMapKeyRef": {"name": "pictures", "key": "logo.png"}, "contentId": "logo"},
    {"name": "Geschäftsbedingungen.pdf", "configMapKeyRef": {"name": "legal", "key": "terms.pdf"}},
]
INLINE = {
    "from": FROM,
    "subject": "{{ first_name }}, our news",
    "text": "Hello {{ first_name }}\n",
    "html": '<img src="cid:logo"><p>Hello {{ first_name }}</p>',
    "attachments": FILES,
}


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """ConfigMaps as the kubelet mounts them."""
    folder = tmp_path / "maps"
    for name, key, data in (
        ("pictures", "logo.png", LOGO),
        ("legal", "terms.pdf", TERMS),
        ("autumn", "subject", b"{{ first_name }}, from a ConfigMap\n"),
        ("autumn", "text", "\ufeffGr\u00fc\u00dfe, {{ first_name }}\n".encode()),
        ("autumn", "html", b'<img src="cid:logo"><p>{{ first_name }}</p>'),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / key).write_bytes(data)
    return folder


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path, maps: Path) -> Iterator[Fleet]:
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="5000/s") as fleet:
        fleet.environ[environment.CONFIG_FOLDER] = str(maps)
        fleet.definition = campaign(message=INLINE)
        yield fleet


def sent(fleet: Fleet, count: int) -> dict[str, EmailMessage]:
    fleet.start()
    fleet.work(2)
    return arrived(fleet, count)


def arrived(fleet: Fleet, count: int) -> dict[str, EmailMessage]:
    assert fleet.totals.sent == fleet.totals.planned == count
    found = {}
    for recipient, body in fleet.sink.messages():
        message = email.message_from_bytes(body, policy=email.policy.default)
        assert isinstance(message, email.message.EmailMessage)
        assert not any(part.defects for part in message.walk())
        found[recipient] = message
    assert len(found) == count
    return found


def files(message: EmailMessage) -> dict[str | None, Any]:
    return {p.get_filename(): p.get_payload(decode=True) for p in message.walk() if p.get_content_disposition()}


def test_everybody_gets_the_files_as_they_were_when_the_run_was_planned(fleet: Fleet, maps: Path) -> None:
    subscribers(fleet.database_url, 30)
    fleet.start()
    (maps / "legal" / "terms.pdf").write_bytes(b"edited")
    (maps / "pictures" / "logo.png").unlink()
    fleet.work(2)
    for n, (recipient, message) in enumerate(sorted(arrived(fleet, 30).items())):
        assert files(message) == {"logo.png": LOGO, "Geschäftsbedingungen.pdf": TERMS}, n
        related = next(p for p in message.walk() if p.get_content_type() == "multipart/related")
        html, picture = related.iter_parts()
        assert picture["Content-ID"] == "<logo>"
        number = recipient.removeprefix("user").partition("@")[0]
        assert html.get_content() == f'<img src="cid:logo"><p>Hello Name {number}</p>'
        assert message["List-Id"] == "<campaign.test.example.com>"
        assert message["Feedback-ID"] == "campaign:1:test:mailfleet"


def test_a_template_of_a_config_map_stands_for_the_fields(fleet: Fleet, maps: Path) -> None:
    subscribers(fleet.database_url, 3)
    own = {"X-A": "{{ first_name }}", "Feedback-ID": "mine:own"}
    fleet.definition = campaign(
        message={"from": FROM, "templateRef": {"name": "autumn"}, "attachments": FILES[:1], "headers": own}
    )
    fleet.start()
    (maps / "autumn" / "text").write_text("edited")
    fleet.work(1)
    message = arrived(fleet, 3)["user2@example.net"]
    assert message["Subject"] == "Name 2, from a ConfigMap"
    assert message["X-A"] == "Name 2"
    assert message["Feedback-ID"] == "mine:own"
    assert message.get_body(("plain",)).get_content() == "Grüße, Name 2\r\n"  # type: ignore[union-attr]
    assert files(message) == {"logo.png": LOGO}


def test_each_plan_draws_its_boundary_and_every_mail_of_the_run_has_it(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 5)
    marks = {(m.get_boundary() or "")[2:] for m in sent(fleet, 5).values()}
    assert marks == {load_campaign(fleet.engine, fleet.run).materials.boundary}
    fleet.run_id = "2"
    fleet.plan()
    other = load_campaign(fleet.engine, fleet.run).materials.boundary
    assert {*marks, other} - {*marks} == {other}
    assert len(bytes.fromhex(other)) == 16


@pytest.mark.parametrize(
    ("change", "message", "reason", "words"),
    [
        ("pictures/logo.png", INLINE, ReportReason.CONFIG_MAP_NOT_FOUND, ["attachments[0]", "ConfigMap pictures"]),
        ("legal/", INLINE, ReportReason.CONFIG_MAP_NOT_FOUND, ["attachments[1]", "legal", "key terms.pdf", "create"]),
        ("legal/terms.pdf=big", INLINE, ReportReason.ATTACHMENT_INVALID, ["attachments[1]", "10485760", "link"]),
        ("autumn/", "templateRef", ReportReason.CONFIG_MAP_NOT_FOUND, ["templateRef", "autumn", "create it"]),
        ("autumn/subject", "templateRef", ReportReason.TEMPLATE_INVALID, ["templateRef", "key subject"]),
        ("autumn/text=\xff", "templateRef", ReportReason.TEMPLATE_INVALID, ["key text", "UTF-8"]),
        ("autumn/text={{ x", "templateRef", ReportReason.TEMPLATE_INVALID, ["message.text", "line 1"]),
        ("autumn/html=a\0b", "templateRef", ReportReason.TEMPLATE_INVALID, ["key html", "NUL"]),
        ("", "templateRef", ReportReason.TEMPLATE_INVALID, ["cid:logo", "contentId of no attachment"]),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(
    fleet: Fleet, maps: Path, change: str, message: Any, reason: ReportReason, words: list[str]
) -> None:
    subscribers(fleet.database_url, 3)
    where, _, data = change.partition("=")
    path = maps / where
    if data:
        path.write_bytes(b"x" * MATERIALS_OCTETS if data == "big" else data.encode("latin-1"))
    elif where.endswith("/"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    elif where:
        path.unlink()
    if message == "templateRef":
        message = {"from": FROM, "templateRef": {"name": "autumn"}, "attachments": FILES[:1] if data else []}
    definition = campaign(message=message)
    run = fleet.runs.ensure("test", "campaign", "1", definition).id
    ended = planning.plan_run(fleet.engine, run=run, database_url=fleet.database_url, reporter="p", config_folder=maps)
    (report,) = fleet.runs.reports([run])
    assert report.reason is reason, report
    assert all(word in report.message for word in words), report.message
    assert len(report.message.encode()) <= 256
    assert ended is (Exit.INTERRUPTED if reason is ReportReason.CONFIG_MAP_NOT_FOUND else Exit.IMPOSSIBLE)


def test_the_largest_materials_fit_the_ledger(fleet: Fleet, maps: Path) -> None:
    subscribers(fleet.database_url, 2)
    octets = bytes(range(256)) * (MATERIALS_OCTETS // 256)
    (maps / "legal" / "terms.pdf").write_bytes(octets[: -len(LOGO)])
    assert fleet.plan().returncode == 0
    assert load_campaign(fleet.engine, fleet.run).materials.files == (LOGO, octets[: -len(LOGO)])


def test_an_edit_while_the_plan_is_made_keeps_the_newer_plans_files(fleet: Fleet, maps: Path) -> None:
    """The older planner publishes nothing: neither pages nor files."""
    subscribers(fleet.database_url, 2)
    assert fleet.plan().returncode == 0
    mark = load_campaign(fleet.engine, fleet.run).materials.boundary
    edited = campaign(message={**INLINE, "attachments": FILES[:1]})
    assert fleet.runs.edit(fleet.run, edited)
    assert fleet.plan().returncode == 0
    materials = load_campaign(fleet.engine, fleet.run).materials
    assert materials.files == (LOGO,)
    assert materials.boundary != mark

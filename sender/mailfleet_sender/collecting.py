"""What a message takes from ConfigMaps, read where the kubelet mounts them: a folder for each, a file for each key.

The planner's pod alone has them; the operator has no right to read ConfigMaps, and senders read the ledger.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .contract.accounts import ReportReason
from .contract.campaign import TEMPLATE_KEYS
from .contract.materials import MATERIALS_OCTETS, Materials
from .errors import PlanError
from .message import check_attachments

if TYPE_CHECKING:
    from pathlib import Path

    from .contract.campaign import Message


def collect(message: Message, folder: Path) -> Materials:
    """Read all of it.

    Args:
        message: of the campaign.
        folder: holds a folder for each ConfigMap that `message.config_maps()` names.

    Raises:
        PlanError: ConfigMapNotFound, TemplateInvalid or AttachmentInvalid, naming the field and the remedy.
    """
    template = _template(message.template_ref.name, folder) if message.template_ref else {}
    files, total = [], 0
    for n, attachment in enumerate(message.attachments):
        reference, field = attachment.config_map_key_ref, f"message.attachments[{n}]"
        data = _read(folder, reference.name, reference.key)
        if data is None:
            raise PlanError(
                ReportReason.CONFIG_MAP_NOT_FOUND,
                f"{field}: there is no ConfigMap {reference.name} with the key {reference.key} in this namespace: "
                "create it (kubectl create configmap --from-file), and the plan is tried again",
            )
        if (total := total + len(data)) > MATERIALS_OCTETS:
            raise PlanError(
                ReportReason.ATTACHMENT_INVALID,
                f"{field}: all attachments together are over {MATERIALS_OCTETS} bytes: link to large files instead",
            )
        files.append(data)
    materials = Materials(secrets.token_hex(16), template, tuple(files))
    check_attachments(materials.applied(message))
    return materials


def _template(name: str, folder: Path) -> dict[str, str]:
    """The fields that a template's ConfigMap gives."""
    found: dict[str, str] = {}
    for key in TEMPLATE_KEYS:
        if (data := _read(folder, name, key)) is None:
            continue
        field = f"message.templateRef: the key {key} of ConfigMap {name}"
        try:
            found[key] = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise PlanError(ReportReason.TEMPLATE_INVALID, f"{field} is not UTF-8: save it as UTF-8") from None
        if "\0" in found[key]:
            raise PlanError(ReportReason.TEMPLATE_INVALID, f"{field} holds a NUL character: remove it")
    if not found:
        raise PlanError(
            ReportReason.CONFIG_MAP_NOT_FOUND,
            f"message.templateRef: there is no ConfigMap {name} with the keys subject, text, html in this namespace: "
            "create it, and the plan is tried again",
        )
    if not found.get("subject", "").strip():
        _lacks(name, "subject, a single line")
    if "text" not in found and "html" not in found:
        _lacks(name, "text or html, or both")
    found["subject"] = found["subject"].strip("\r\n")  # a file ends with a newline
    return found


def _lacks(name: str, what: str) -> None:
    raise PlanError(ReportReason.TEMPLATE_INVALID, f"message.templateRef: the ConfigMap {name} needs the key {what}")


def _read(folder: Path, name: str, key: str) -> bytes | None:
    """One key; None: the ConfigMap or the key is not there, which its mount leaves out (`optional`)."""
    try:
        return (folder / name / key).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None

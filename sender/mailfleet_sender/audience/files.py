"""Where the CSV file of a campaign is: a key of a ConfigMap, a file of a volume, or behind a URL."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError

from .fetching import FILE_OCTETS, fetched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mailfleet_sender.contract.campaign import ConfigMapKey, Csv, VolumeFile
    from mailfleet_sender.settings import Network

    from .csv_file import Lines


@contextmanager
def opened(csv: Csv, *, config_folder: Path, volume_folder: Path, networks: Sequence[Network]) -> Iterator[Lines]:
    """Open it for reading, once.

    Args:
        csv: of the campaign; it has one source.
        config_folder: holds a folder for each ConfigMap that the campaign names.
        volume_folder: where the volume is.
        networks: from which a URL may be fetched though they are private.

    Raises:
        PlanError: ConfigMapNotFound, SourceUnavailable or SourceRefused, naming the field and the remedy.
    """
    if csv.url:
        with fetched(csv.url, networks) as lines:
            yield lines
    elif csv.persistent_volume_claim:
        with _within(volume_folder, csv.persistent_volume_claim) as file:
            yield file
    elif csv.config_map_key_ref:
        with _of_config_map(config_folder, csv.config_map_key_ref) as file:
            yield file
    else:
        raise PlanError(
            ReportReason.SOURCE_REFUSED, "recipients.csv: name one of configMapKeyRef, persistentVolumeClaim and url"
        )


@contextmanager
def _of_config_map(folder: Path, reference: ConfigMapKey) -> Iterator[Lines]:
    try:
        file = (folder / reference.name / reference.key).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise PlanError(
            ReportReason.CONFIG_MAP_NOT_FOUND,
            f"recipients.csv: there is no ConfigMap {reference.name} with the key {reference.key} in this namespace: "
            "create it (kubectl create configmap --from-file), and the plan is tried again",
        ) from None
    with file:
        yield file


@contextmanager
def _within(folder: Path, reference: VolumeFile) -> Iterator[Lines]:
    """A file of the volume; what a link in it leads to must lie in it as well."""
    field = "recipients.csv.persistentVolumeClaim"
    where = f"{field}: {reference.path} of volume {reference.claim_name}"
    path = (folder / reference.path).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PlanError(ReportReason.SOURCE_REFUSED, f"{where} leads out of the volume")
    try:
        # Not to wait for the other end of a pipe that somebody put there.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise PlanError(
            ReportReason.SOURCE_UNAVAILABLE, f"{where} may not be read: planners run as user and group {os.getuid()}"
        ) from None
    except OSError as error:
        what = "is not there" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise PlanError(
            ReportReason.SOURCE_UNAVAILABLE, f"{where} {what}: the path is that within the volume, as lists/vip.csv"
        ) from None
    found = os.fstat(handle)
    regular = stat.S_ISREG(found.st_mode)
    if not regular or found.st_size > FILE_OCTETS:
        os.close(handle)
        what = f"is larger than {FILE_OCTETS} octets" if regular else "is no regular file"
        raise PlanError(ReportReason.SOURCE_REFUSED, f"{where} {what}")
    with os.fdopen(handle, "rb") as file:
        yield file
